"""What the documentation walks through works as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]

# A page's first block is a file, its second the line of the registry.
PROGRAM = """
import importlib, pathlib, re, sys, types

page, backbone, workdir = sys.argv[1:]
text = pathlib.Path(page).read_text(encoding="utf-8")
code, line = re.findall(r"```python\\n(.*?)```", text, re.S)
file, table = re.search(r"The file, `(.*?)`", text)[1], re.search(r"registry.*?, in `(.*?)`", text)[1]
name = file.removesuffix(".py").replace("/", ".")
folder, _, stem = name.rpartition(".")
module = types.ModuleType(name)
sys.modules[name] = module  # where dataclasses look their module up
exec(compile(code, file, "exec"), module.__dict__)
setattr(importlib.import_module(folder), stem, module)

registry = importlib.util.find_spec(f"{folder}.registry")
source = pathlib.Path(registry.origin).read_text(encoding="utf-8")
with_line = re.sub(rf"^({table}\\b.*{{)$", lambda found: f"{found[1]}\\n{line}", source, flags=re.M)
assert with_line != source
whole = types.ModuleType(registry.name)
sys.modules[registry.name] = whole
exec(compile(f"from {folder} import {stem}\\n{with_line}", registry.origin, "exec"), whole.__dict__)
setattr(importlib.import_module(folder), "registry", whole)

import lpi_jax
from lpi_jax import config as configs
from lpi_jax.run import continual

config = configs.intended()
config.update_from_flattened_dict({
    "backbone": backbone, "data.domains": ("comic", "fax"), "data.train": 16, "data.val": 8, "train.epochs": 1,
    "train.batch": 16, "data.max_words": 4, "method.length": 4, "method.layers": 2, "method.depth": 2, "eval.batch": 32,
})
exec(sys.stdin.read(), {"config": config})
configs.check(config)
results = continual.run(config, workdir)
print(sorted(results["metrics"]), results["method"], results["problem"], results["tasks"])
print(type(lpi_jax.load(workdir)).__name__)
from lpi_jax import report
print(report.table([workdir]))
"""


ADDED = [f"lpi_jax/{name}.py" for name in ("methods/one_prompt", "problems/matching", "data/sources/listing")]


@pytest.fixture
def walked(tiny_clip, compiled, tmp_path):
    """(kind, name, settings) -> what a small run with the code of a page prints."""

    def walk(kind: str, settings: str) -> str:
        page = ROOT / "docs" / f"add_a_{kind}.md"
        command = [sys.executable, "-c", PROGRAM, str(page), str(tiny_clip), str(tmp_path / "run")]
        environment = {**os.environ, **compiled, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, input=settings, capture_output=True, text=True, env=environment, timeout=300)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return walk


def test_a_method_is_one_file_and_one_line(walked):
    said = walked("method", "config.method.name = 'one_prompt'\nconfig.method.tokens = 3")
    assert "one_prompt retrieval ['comic', 'fax']" in said
    assert "Retriever" in said
    assert "| ONE_PROMPT intended | 1 | final |" in said


def test_a_problem_is_one_folder_and_one_line(walked):
    said = walked("problem", "config.problem.name = 'matching'")
    assert "['accuracy'] lpi matching ['comic', 'fax']" in said
    assert "matching, n = 16" in said


def test_a_source_is_one_file_and_one_line(walked, tmp_path):
    lines = ["# a comment"]
    for task in range(2):
        for number in range(24):
            Image.new("RGB", (32, 32), (9 * number, 100 * task, 50)).save(tmp_path / f"{task}-{number}.png")
            split = "train" if number < 16 else "val"
            lines.append(f"{task}-{number}.png\ttask {task}\t{split}\ta shade of number {number}")
    (tmp_path / "list.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    said = walked("source", f"config.data.name = 'listing'\nconfig.data.path = {str(tmp_path / 'list.txt')!r}")
    assert "lpi retrieval ['task 0', 'task 1']" in said


def test_the_pages_name_files_that_exist():
    for page in (*(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"
        for path in re.findall(r"`((?:lpi_jax|tests|docs|configs|experiments)/[\w/]+\.\w+)`", page.read_text("utf-8")):
            assert (ROOT / path).exists() or path in ADDED, f"{page.name}: {path}"
