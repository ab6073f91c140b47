"""What the documentation walks through works as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A page's first block is a file, its second the line of the registry.
PROGRAM = """
import sys, types
import numpy as np

kind, name, page, backbone, workdir = sys.argv[1:]
import re
blocks = re.findall(r"```python\\n(.*?)```", open(page, encoding="utf-8").read(), re.S)
module = types.ModuleType(name)
sys.modules[name] = module  # where dataclasses look their module up
exec(compile(blocks[0], page, "exec"), module.__dict__)
if kind == "method":
    from lpi_jax.methods import registry
elif kind == "problem":
    from lpi_jax.problems import registry
else:
    from lpi_jax.data.sources import registry
exec(blocks[1], {**vars(registry), name: module})

from lpi_jax import config as configs
from lpi_jax.run import continual

config = configs.intended()
small = {"backbone": backbone, "data.domains": ("comic", "fax"), "data.train": 16, "data.val": 8, "train.epochs": 1,
         "train.batch": 16, "method.length": 4, "method.layers": 2, "method.depth": 2, "eval.batch": 32}
config.update_from_flattened_dict({key: value for key, value in small.items()})
exec(sys.stdin.read(), {"config": config, "workdir": workdir})
configs.check(config)
results = continual.run(config, workdir)
print(sorted(results["metrics"]), results["method"], results["problem"], results["stream"]["name"])
import lpi_jax
print(type(lpi_jax.load(workdir)).__name__)
"""


@pytest.fixture
def walked(tiny_clip, compiled, tmp_path):
    """(kind, name, settings) -> what a small run with the code of a page prints."""

    def walk(kind: str, name: str, settings: str) -> str:
        page = ROOT / "docs" / f"add_a_{kind}.md"
        command = [sys.executable, "-c", PROGRAM, kind, name, page, tiny_clip, tmp_path / "run"]
        environment = {**os.environ, **compiled, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            list(map(str, command)), input=settings, capture_output=True, text=True, env=environment, timeout=300
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return walk


def test_a_method_is_one_file_and_one_line(walked):
    said = walked("method", "one_prompt", "config.method.name = 'one_prompt'\nconfig.method.tokens = 3")
    assert "'image_to_text/R@1'" in said and "one_prompt retrieval scenes" in said and "Retriever" in said


def test_the_pages_name_files_that_exist():
    for page in (*(ROOT / "docs").glob("*.md"), ROOT / "CONTRIBUTING.md"):
        for link in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert link.startswith("http") or (page.parent / link).exists(), f"{page.name}: {link}"
        for path in re.findall(r"`((?:lpi_jax|tests|docs|configs|experiments)/[\w/]+\.\w+)`", page.read_text("utf-8")):
            assert (ROOT / path).exists() or "one_prompt" in path, f"{page.name}: {path}"
