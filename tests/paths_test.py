"""Paths as users write them: the home folder by its sign, and no URL where a folder is meant."""

import os
from pathlib import Path

import pytest

import lpi_jax
from lpi_jax import paths, report
from lpi_jax.check import command
from lpi_jax.config import command_line
from lpi_jax.config.defaults import intended
from lpi_jax.data.sources import coco
from lpi_jax.errors import UserError
from lpi_jax.main import main
from lpi_jax.run import continual

URL = "gs://bucket/x"


@pytest.fixture
def home(monkeypatch, tmp_path):
    """The home folder, for once an empty one."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def config_file(home):
    (home / "experiment.py").write_text("from lpi_jax import config\n\nget_config = config.intended\n")
    return "~/experiment.py"


def test_the_sign_of_the_home_folder_stands_in_front_only(home):
    assert paths.local("~/data/x", "x") == home / "data" / "x"
    assert paths.local("~", "x") == home
    for path in ("a/~/b", "x~", "/a b/c", "", "C:/data", "openai/clip-vit-base-patch16"):
        assert paths.expanded(path, "x") == path
    assert paths.local(Path("~/x"), "x") == home / "x"


@pytest.mark.parametrize("url", [URL, "s3://b", "https://host/a.jsonl", "file:///a", "hf://x/y", Path("gs://bucket")])
def test_a_url_is_no_path(url):
    with pytest.raises(UserError, match=r"^--x is \w+:/.*, a URL; expected a path on this machine: fetch or mount"):
        paths.local(url, "--x")


@pytest.mark.parametrize("path", [None, 7, b"a", "a\0b"], ids=repr)
def test_what_cannot_be_a_path_is_refused(path):
    with pytest.raises(UserError, match=r"^--x is .*, expected a path"):
        paths.local(path, "--x")


def test_keys_of_a_configuration_may_name_the_home_folder(home, config_file):
    arguments = [f"--config={config_file}", "--workdir=~/run", "--config.backbone=~/clip"]
    config, workdir = command_line.parse(arguments)
    assert (config.backbone, workdir) == (f"{home}/clip", f"{home}/run")
    streams = ({"name": "jsonl", "path": "~/a.jsonl"}, {"name": "table", "path": "b.csv", "cache_dir": "~"})
    config = intended()
    config.update_from_flattened_dict({**{key: f"~/{key}" for key in paths.KEYS}, "data.streams": streams})
    config = paths.in_config(config)
    assert (config.backbone, config.method.similarity, config.data.path) == (
        f"{home}/backbone",
        f"{home}/method.similarity",
        f"{home}/data.path",
    )
    assert "~" not in str(config)
    assert config.data.streams[1] == {"name": "table", "path": "b.csv", "cache_dir": str(home)}
    assert config.is_locked and not config.train.optimizer_args.is_locked


def test_the_callers_configuration_stays_as_it_was(home):
    config = intended()
    config.data.path = "~/data"
    assert paths.in_config(config).data.path == f"{home}/data"
    assert config.data.path == "~/data"


def test_a_run_is_the_same_under_its_short_name(monkeypatch, finished_run, small_settings, tmp_path, capfd):
    (tmp_path / "experiment.py").write_text("from lpi_jax import config\n\nget_config = config.intended\n")
    monkeypatch.setenv("HOME", os.sep)
    settings = {**small_settings, "backbone": f"~{small_settings['backbone']}"}
    flags = [f"--config.{key}={value}" for key, value in settings.items()]
    workdir = f"~{finished_run.directory}"
    assert main(["main", f"--config=~{tmp_path}/experiment.py", f"--workdir={workdir}", *flags]) == 0
    assert capfd.readouterr().out.endswith(f"Results: {finished_run.directory}/results.json\n")
    assert lpi_jax.load(workdir).tasks == tuple(finished_run.results["tasks"])
    assert report.main(["report", workdir]) == 0


@pytest.mark.parametrize("key", [*paths.KEYS, "data.streams"])
def test_a_url_in_a_key_is_one_sentence(home, config_file, capfd, key):
    value = ({"name": "jsonl", "path": URL},) if key == "data.streams" else URL
    readers = {"data.path": "jsonl", "data.manifest": "flickr30k", "data.val_list": "folder", "data.streams": "multi"}
    flags = [f"--config.data.name={readers[key]}"] if key in readers else []
    before = {*home.rglob("*")}
    assert main(["main", f"--config={config_file}", "--workdir=~/run", *flags, f"--config.{key}={value}"]) == 2
    name = "data.streams[0].path" if key == "data.streams" else key
    assert capfd.readouterr().err.startswith(f"error: config.{name} is {URL}, a URL; expected a path on this machine")
    assert {*home.rglob("*")} == before


@pytest.mark.parametrize(
    ("command", "arguments", "name"),
    [
        (main, ["main", "--config=~/experiment.py", f"--workdir={URL}"], "--workdir"),
        (main, ["main", f"--config={URL}", "--workdir=~/run"], "--config"),
        (command.main, ["check", "--config=~/experiment.py", f"--out={URL}"], "--out"),
        (report.main, ["report", URL], "WORKDIR"),
        (report.main, ["report", f"--out={URL}", "run"], "--out"),
        (coco.main, ["manifest", f"--path={URL}", "--out=x.csv"], "--path"),
        (coco.main, ["manifest", "--path=x", f"--out={URL}"], "--out"),
        (coco.main, ["manifest", "--path=x", "--out=x.csv", f"--manifest={URL}"], "--manifest"),
    ],
)
def test_a_url_on_a_command_line_is_one_sentence(home, config_file, capfd, command, arguments, name):
    before = {*home.rglob("*")}
    assert command(arguments) == 2
    assert capfd.readouterr() == (
        "",
        f"error: {name} is {URL}, a URL; expected a path on this machine: fetch or mount what is there first\n",
    )
    assert {*home.rglob("*")} == before


def test_a_url_in_a_script_is_refused_too(home):
    with pytest.raises(UserError, match=r"^--workdir is gs://bucket/x, a URL"):
        continual.run(intended(), URL)
    with pytest.raises(UserError, match=r"^the run's directory is gs://bucket/x, a URL"):
        lpi_jax.load(URL)
    assert not [*home.iterdir()]


def test_the_home_of_nobody_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"^--workdir is ~nosuchuser/x, but ~nosuchuser is nobody's home folder here"):
        paths.local("~nosuchuser/x", "--workdir")
    (tmp_path / "~odd").mkdir()  # a file may be called so
    assert paths.expanded("~odd", "--workdir") == "~odd"
