"""Devices that are not there: one sentence, status 2 and nothing written, before anything is read.

Processes of their own: JAX looks for its devices once.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from lpi_jax.parallel import devices

ROOT = Path(__file__).parents[2]
CLUSTERS = ("JAX_", "SLURM", "OMPI", "PMIX")

ASKED = """
import contextlib, io, json, sys
import jax, lpi_jax
from lpi_jax.main import main

config, workdir, *platforms = sys.argv[1:]

def told(function, *arguments):
    err = io.StringIO()
    with contextlib.redirect_stderr(err):
        try:
            result = function(*arguments)
        except Exception as error:
            result = type(error).__name__, str(error)
    return result, err.getvalue()

found = {}
for platform in platforms:
    jax.config.update("jax_platforms", platform)
    # The backbone is not there either: whoever looked for it first would say so.
    flags = [f"--config={config}", f"--workdir={workdir}", "--config.backbone=/nosuch"]
    found[platform] = {"main": told(main, ["main", *flags]), "load": told(lpi_jax.load, "/nosuch")}
print(json.dumps(found))
"""


def ask(tmp_path, *platforms, path=()):
    """What main and load say where JAX_PLATFORMS is each of `platforms`; and what was written to stderr besides."""
    (tmp_path / "config.py").write_text("from lpi_jax import config\n\nget_config = config.intended\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(CLUSTERS)}
    environment |= {"PYTHONPATH": os.pathsep.join([*map(str, path), str(ROOT)])}
    command = [sys.executable, "-c", ASKED, str(tmp_path / "config.py"), str(tmp_path / "run"), *platforms]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "run").exists()
    return json.loads(done.stdout), done.stderr


def assert_said(found, sentence):
    assert found["main"] == [2, f"error: {sentence}\n"]
    assert found["load"] == [["UserError", sentence], ""]


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    return ask(tmp_path_factory.mktemp("asked"), "metaverse", "cuda")


def test_a_platform_that_does_not_exist_is_one_sentence(asked):
    found, err = asked
    (_, sentence), _ = found["metaverse"]["load"]
    assert sentence.startswith(
        "JAX_PLATFORMS is 'metaverse', which cannot be used here (Unable to initialize backend 'metaverse': Backend"
        " 'metaverse' is not in the list of known backends: "
    )
    assert sentence.endswith(
        "); expected a platform whose device, driver and jaxlib are here, such as JAX_PLATFORMS=cpu"
    )
    assert_said(found["metaverse"], sentence)
    assert err == ""


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="here is a GPU")
def test_a_platform_without_a_device_is_one_sentence(asked):
    found, _ = asked
    assert_said(
        found["cuda"],
        "JAX_PLATFORMS is 'cuda', which cannot be used here (there is no such device); expected a platform whose"
        " device, driver and jaxlib are here, such as JAX_PLATFORMS=cpu",
    )


def test_a_plugin_that_can_use_no_device_is_not_replaced_by_the_cpu_unasked(tmp_path):
    """As with jaxlib for CUDA and a driver that is too old: JAX logs a traceback and takes the CPU."""
    plugin = tmp_path / "site" / "jax_plugins" / "xla_abacus"
    plugin.mkdir(parents=True)
    (plugin / "__init__.py").write_text("def initialize():\n    raise RuntimeError('driver 1.0 is too old')\n")
    info = tmp_path / "site" / "xla_abacus-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: xla_abacus\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[jax_plugins]\nxla_abacus = jax_plugins.xla_abacus\n")
    found, err = ask(tmp_path, "", "cpu", path=[tmp_path / "site"])
    (_, sentence), _ = found[""]["load"]
    assert sentence == (
        "JAX's plugin xla_abacus is installed but finds no device that it can use (there is no such device); expected"
        " one, and a driver that fits, or JAX_PLATFORMS=cpu to do without"
    )
    status, told = found[""]["main"]
    assert (status, told.replace("driver 1.0 is too old", "there is no such device")) == (2, f"error: {sentence}\n")
    assert "driver 1.0 is too old" in told and err == ""  # told once, and no traceback
    assert "config.json cannot be read" in found["cpu"]["load"][0][1]  # and the remedy is one


def test_the_devices_here_are_found():
    assert devices.available() == jax.devices()
