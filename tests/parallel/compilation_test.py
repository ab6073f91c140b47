"""Compiled programs are kept between starts in the user's cache; a folder that cannot be used does no harm."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from lpi_jax.parallel import compilation
from tests.conftest import ROOT
from tests.support.disks import full

SETTINGS = (
    "jax_compilation_cache_dir",
    "jax_enable_compilation_cache",
    "jax_compilation_cache_max_size",
    "jax_persistent_cache_min_compile_time_secs",
)
# A new process compiles one program and tells what came from the folder.
PROGRAM = """
import jax, jax.numpy as jnp, numpy as np, sys
from lpi_jax.parallel.compilation import keep_compiled
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event) if event.endswith("cache_hits") else None)
folder = keep_compiled(*sys.argv[1:])
def f(x):
    for _ in range(400):
        x = jnp.sin(x @ x)
    return x
jax.block_until_ready(jax.jit(f)(np.ones((8, 8), np.float32)))
print(folder, len(hits))
"""


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """This process's own settings, whatever a test does to them."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def start(*arguments: str, **environment: str) -> tuple[str, int, str]:
    """(folder, programs found there, stderr) of a new process."""
    known = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env={**known, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    folder, hits = done.stdout.split()
    return folder, int(hits), done.stderr


def test_a_second_start_finds_the_programs_of_the_first_in_the_users_cache_and_an_unfinished_one_is_replaced(tmp_path):
    folder, hits, _ = start(XDG_CACHE_HOME=str(tmp_path))
    assert (Path(folder).parent, hits) == (tmp_path / "lpi_jax", 0)
    assert start(XDG_CACHE_HOME=str(tmp_path))[1] == 1
    # Killed while it was written: cut, and without the mark that follows.
    (program,) = [path for path in Path(folder).glob("*-cache") if path.name.startswith("jit_f-")]
    program.write_bytes(program.read_bytes()[:100])
    program.with_name(program.name.replace("-cache", "-atime")).unlink()
    _, hits, said = start(XDG_CACHE_HOME=str(tmp_path))
    assert (hits, said) == (0, "")
    assert start(XDG_CACHE_HOME=str(tmp_path))[1] == 1


def test_a_key_and_jaxs_own_variables_move_and_stop_it(tmp_path):
    home = {"XDG_CACHE_HOME": str(tmp_path / "home")}
    assert Path(start(str(tmp_path / "own"), **home)[0]).parent == tmp_path / "own"
    assert start("off", **home)[0] == "None"
    assert start(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "variable"), **home)[0] == str(tmp_path / "variable")
    assert start(JAX_ENABLE_COMPILATION_CACHE="false", **home)[0] == "None"
    assert not (tmp_path / "home").exists()


def test_a_folder_that_cannot_be_used_is_told_in_one_line_and_nothing_is_kept(tmp_path, capsys):
    (tmp_path / "file").write_text("not a folder")
    jax.config.update("jax_compilation_cache_dir", None)
    assert compilation.keep_compiled(str(tmp_path / "file" / "below")) is None
    folder = tmp_path / "file" / "below" / compilation.users_folder().name
    said = capsys.readouterr().err
    assert said == f"compiled programs are not kept: {folder} cannot be used (Not a directory)\n"
    assert jax.config.jax_compilation_cache_dir is None


def test_processors_that_differ_have_folders_that_differ(monkeypatch):
    here = compilation.users_folder()
    monkeypatch.setattr("platform.machine", lambda: "another")
    assert compilation.users_folder().parent == here.parent
    assert compilation.users_folder() != here


def test_a_disk_without_room_is_told_once_and_nothing_is_kept(tmp_path, capsys):
    before = jax.config.jax_compilation_cache_dir
    with full(4096):
        assert compilation.keep_compiled(str(tmp_path)) is None
    said = capsys.readouterr().err
    assert said.startswith("compiled programs are not kept: ") and said.endswith("cannot be used (File too large)\n")
    assert said.count("\n") == 1
    assert jax.config.jax_compilation_cache_dir == before
    assert not [path for path in compilation._own_part(tmp_path).iterdir() if path.name != ".lockfile"]
