"""What is imported, and when: no other framework ever, and what runs a model only once one has to run.

One process of its own, in which torch, TensorFlow and scikit-learn are installed and fail when they are imported: so
the promise is kept also where the extra [parity] has put a real torch beside us.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOREIGN = {"torch": "2.13.0", "tensorflow": "2.21.0", "sklearn": "1.8.0"}

STAGES = """
import contextlib, io, json, sys

def imported():
    return sorted({name.partition(".")[0] for name in sys.modules})

def quietly(*arguments):
    from lpi_jax.main import main
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(["lpi_jax.main", *arguments])
    return {"status": status, "out": out.getvalue(), "err": err.getvalue(), "imported": imported()}

config, workdir, *changes = sys.argv[1:]
found = {}
import lpi_jax
found["package"] = {"imported": imported()}
import lpi_jax.main
found["main"] = {"imported": imported()}
found["help"] = quietly("--help")
found["misspelt"] = quietly(f"--config={config}", f"--workdir={workdir}", "--config.train.lrr=1")
import lpi_jax.report
found["report"] = {"imported": imported()}
import lpi_jax.run.continual
found["continual"] = {"imported": imported()}
found["run"] = quietly(f"--config={config}", f"--workdir={workdir}", *changes)
found["load"] = {"features": lpi_jax.load(workdir).encode_text(["a red circle"]).shape, "imported": imported()}
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def found(tmp_path_factory, small_settings, compiled):
    """What was imported after each stage of one process."""
    folder = tmp_path_factory.mktemp("imports")
    for name, version in FOREIGN.items():
        (folder / "site" / name).mkdir(parents=True)
        (folder / "site" / name / "__init__.py").write_text(f"raise ImportError('{name} was imported')\n")
        info = folder / "site" / f"{name}-{version}.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    config = folder / "small.py"
    config.write_text("from lpi_jax import config\n\nget_config = config.intended\n")
    settings = {**small_settings, "data.domains": "('fax',)", "data.max_words": 6, "train.epochs": 1}
    changes = [f"--config.{key}={value}" for key, value in settings.items()]
    root = Path(__file__).parents[1]
    environment = {**os.environ, **compiled, "PYTHONPATH": os.pathsep.join([str(folder / "site"), str(root)])}
    command = [sys.executable, "-c", STAGES, str(config), str(folder / "run"), *changes]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("stage", ["package", "main", "help", "misspelt", "report", "continual", "run", "load"])
def test_no_other_framework_is_imported(found, stage):
    assert not set(FOREIGN) & set(found[stage]["imported"])


def test_the_package_needs_no_jax_and_its_help_and_report_nothing_that_runs_a_model(found):
    for stage in ("package", "main", "help", "misspelt", "report"):
        assert not {"flax", "transformers", "orbax", "matplotlib"} & set(found[stage]["imported"]), stage
    assert "jax" not in found["package"]["imported"]
    assert "jax" in found["continual"]["imported"]


def test_pictures_of_results_are_not_drawn_unasked(found):
    assert "matplotlib" not in found["load"]["imported"]


def test_the_stages_did_what_they_should(found):
    assert found["help"]["status"] == 0
    assert "--workdir=DIR" in found["help"]["out"]
    assert found["misspelt"]["status"] == 2
    assert found["misspelt"]["err"] == "error: config has no key 'train.lrr'; the closest is 'train.lr'\n"
    assert found["run"]["status"] == 0
    assert "| LPI intended | 1 | final |" in found["run"]["out"]
    assert found["load"]["features"] == [1, 16]
