"""What a start runs on is told of itself, and never of a repository that it only happens to lie in."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from lpi_jax.workdir.environment import difference, environment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path):
    """A repository of the user's own, and (package's place in it, environment) -> the commit that would be recorded."""
    author = {f"GIT_{who}_{what}": "nobody" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    plain = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}

    def git(*arguments):
        command = ["git", "-C", str(tmp_path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, env={**plain, **author}).stdout

    def recorded(place, changes=False, variables=None):
        folder = tmp_path / place / "lpi_jax"
        (folder / "workdir").mkdir(parents=True)
        for name in ("__init__.py", "workdir/__init__.py", "workdir/environment.py"):
            shutil.copy(ROOT / "lpi_jax" / name, folder / name)
        git("add", ".")
        git("commit", "--quiet", "--message=one")
        if changes:
            (folder / "changed.txt").write_text("not committed")
        command = [
            sys.executable,
            "-B",
            "-c",
            "from lpi_jax.workdir import environment as e; print(e.__file__, e._commit())",
        ]
        own = {**plain, "PYTHONPATH": str(folder.parent), "JAX_PLATFORMS": "cpu", **(variables or {})}
        found = subprocess.run(command, cwd=tmp_path, env=own, capture_output=True, text=True, check=True).stdout
        file, _, commit = found.removesuffix("\n").partition(" ")
        assert file == str(folder / "workdir" / "environment.py")
        return commit

    git("init", "--quiet")
    return tmp_path, git, recorded


def test_the_commit_of_the_packages_own_checkout_is_recorded(repository):
    _, git, recorded = repository
    commit = recorded("")
    assert commit == git("rev-parse", "HEAD").strip()


def test_changes_are_recorded(repository):
    _, git, recorded = repository
    commit = recorded("", changes=True)
    assert commit == git("rev-parse", "HEAD").strip() + "+changes"


def test_the_commit_of_a_repository_that_holds_the_environment_is_not_recorded(repository):
    assert repository[2](".venv/lib/python3.11/site-packages") == ""


def test_the_commit_of_the_repository_whose_hook_starts_the_run_is_not_recorded(repository):
    folder, _, recorded = repository
    variables = {"GIT_DIR": str(folder / ".git"), "GIT_WORK_TREE": str(folder / "site-packages")}
    assert recorded("site-packages", variables=variables) == ""


def test_the_record_tells_of_devices_and_processes():
    found = environment()
    assert found["devices"] == [device.device_kind for device in jax.devices()]
    assert found["processes"] == 1


BEFORE = {"python": "3.11.1", "packages": {"jax": "0.10.1", "numpy": "2.4"}, "commit": "a" * 40, "devices": ["cpu"] * 2}


def test_each_difference_is_named_and_nothing_else():
    now = {
        **BEFORE,
        "packages": {"jax": "0.10.2", "numpy": "2.4"},
        "commit": "b" * 40 + "+changes",
        "devices": ["H100"],
    }
    assert difference(BEFORE, now) == (
        f"commit {'a' * 10} -> {'b' * 10}+changes; devices 2 x cpu -> 1 x H100; jax 0.10.1 -> 0.10.2"
    )
    assert difference(BEFORE, BEFORE) == ""
    assert difference(BEFORE, {**BEFORE, "commit": ""}) == f"commit {'a' * 10} -> none"


@pytest.mark.parametrize("damaged", [None, [], "text", {}, {"packages": 3}])
def test_a_record_without_a_whole_environment_differs_in_all_it_lacks(damaged):
    assert "python none -> 3.11.1" in difference(damaged, BEFORE)
