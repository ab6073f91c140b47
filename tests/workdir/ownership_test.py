"""A run's directory: claimed once, found again, and never taken from somebody else."""

import json
from datetime import UTC, datetime

import pytest

from lpi_jax.config.defaults import intended
from lpi_jax.errors import UserError
from lpi_jax.workdir import ownership

MADE_FROM = {"stream": "5" * 64, "backbone": "b" * 64}


@pytest.fixture(autouse=True)
def _no_look_at_the_machine(monkeypatch):
    monkeypatch.setattr(ownership, "environment", lambda: {"python": "3"})


def changed(**keys):
    config = intended()
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in keys.items()})
    return config


def test_a_new_directory_is_made_and_holds_the_whole_configuration(tmp_path):
    directory = tmp_path / "runs" / "new"
    ownership.claim(directory, intended(), MADE_FROM)
    record = json.loads((directory / "config.json").read_text())
    assert record["config"] == json.loads(json.dumps(intended().to_dict()))
    assert {key: record[key] for key in MADE_FROM} == MADE_FROM
    assert record["environment"] == {"python": "3"}
    assert [path.name for path in directory.iterdir()] == ["config.json"]


def test_the_record_tells_when_the_run_began(tmp_path):
    before = datetime.now(UTC).replace(microsecond=0)
    ownership.claim(tmp_path, intended(), MADE_FROM)
    assert before <= datetime.fromisoformat(ownership.read(tmp_path)["started"]) <= datetime.now(UTC)


def test_an_empty_directory_is_taken(tmp_path):
    ownership.claim(tmp_path, intended(), MADE_FROM)
    assert ownership.read(tmp_path)["stream"] == MADE_FROM["stream"]


def test_the_same_configuration_finds_its_directory_again_and_changes_nothing(tmp_path):
    ownership.claim(tmp_path, changed(train__optimizer_args={"b": 1}, data__domains=("fax", "comic")), MADE_FROM)
    written = (tmp_path / "config.json").read_bytes()
    ownership.claim(tmp_path, changed(train__optimizer_args={"b": 1}, data__domains=("fax", "comic")), MADE_FROM)
    assert (tmp_path / "config.json").read_bytes() == written


def test_the_number_of_devices_may_change_between_two_starts(tmp_path):
    ownership.claim(tmp_path, changed(devices=1), MADE_FROM)
    ownership.claim(tmp_path, changed(devices=8), MADE_FROM)
    assert ownership.read(tmp_path)["config"]["devices"] == 1


def test_the_number_of_processes_may_change_between_two_starts(tmp_path):
    ownership.claim(tmp_path, changed(distributed=True), MADE_FROM)
    written = (tmp_path / "config.json").read_bytes()
    ownership.claim(tmp_path, changed(distributed=False), MADE_FROM)
    assert (tmp_path / "config.json").read_bytes() == written
    assert ownership.read(tmp_path)["config"]["distributed"] is True


def test_going_on_in_another_environment_is_recorded_and_told_once(tmp_path, monkeypatch):
    def claimed(commit):
        monkeypatch.setattr(ownership, "environment", lambda: {"python": "3", "commit": commit})
        return ownership.claim(tmp_path, intended(), MADE_FROM)

    assert claimed("a" * 40) == claimed("a" * 40) == ""
    first = ownership.read(tmp_path)
    assert claimed("b" * 40) == (
        f"goes on in another environment: commit {'a' * 10} -> {'b' * 10} (recorded in"
        f" {tmp_path / 'config.json'}; numbers may differ)"
    )
    assert claimed("b" * 40) == ""
    assert "commit bbbbbbbbbb -> aaaaaaaaaa" in claimed("a" * 40)
    record = ownership.read(tmp_path)
    assert [start["environment"]["commit"] for start in record.pop("resumed")] == ["b" * 40, "a" * 40]
    assert record == first


@pytest.mark.parametrize("resumed", [3, {"a": 1}, [1], [{}]])
def test_a_damaged_list_of_starts_is_named(tmp_path, resumed):
    ownership.claim(tmp_path, intended(), MADE_FROM)
    record = ownership.read(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**record, "resumed": resumed}))
    with pytest.raises(UserError, match=r"config\.json is damaged: its `resumed` is no list of starts"):
        ownership.claim(tmp_path, intended(), MADE_FROM)


def test_another_configuration_is_an_error_that_shows_every_difference_and_only_those(tmp_path):
    ownership.claim(tmp_path, changed(train__lr=0.25, seed=3), MADE_FROM)
    with pytest.raises(UserError) as error:
        ownership.claim(tmp_path, changed(train__lr=0.5, seed=4), {**MADE_FROM, "stream": "6" * 64})
    assert str(error.value) == (
        f"{tmp_path} holds another run: config.seed is 3 there and 4 here; config.train.lr is 0.25 there and 0.5 here;"
        f" stream is '{'5' * 64}' there and '{'6' * 64}' here; choose another --workdir"
    )


def test_an_argument_of_the_optimiser_that_only_one_of_the_two_has_is_a_difference(tmp_path):
    ownership.claim(tmp_path, changed(train__optimizer_args={"momentum": 0.9}), MADE_FROM)
    with pytest.raises(UserError, match=r"config\.train\.optimizer_args\.weight_decay is 'missing' there and 0\.0002"):
        ownership.claim(tmp_path, intended(), MADE_FROM)


def test_a_key_that_is_newer_than_the_run_is_as_the_run_did_it(tmp_path):
    ownership.claim(tmp_path, intended(), MADE_FROM)
    record = json.loads((tmp_path / "config.json").read_text())
    del record["config"]["towers"], record["config"]["matmul_precision"], record["config"]["train"]["checkpoints_kept"]
    (tmp_path / "config.json").write_text(json.dumps(record))
    ownership.claim(tmp_path, intended(), {**MADE_FROM, "tokenizer": "7" * 64})
    with pytest.raises(UserError, match=r"config\.towers\.text_heads is 0 there and 2 here; choose another"):
        ownership.claim(tmp_path, changed(backbone="x.npz", towers__text_heads=2), MADE_FROM)


def test_a_record_of_a_newer_version_is_named(tmp_path):
    ownership.claim(tmp_path, intended(), MADE_FROM)
    record = json.loads((tmp_path / "config.json").read_text())
    record["config"]["train"]["warm_up"] = 3
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match=r"config\.json: there is no key 'train\.warm_up'; expected a run of"):
        ownership.claim(tmp_path, intended(), MADE_FROM)


def test_a_directory_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="holds other files; expected a new or empty folder"):
        ownership.claim(tmp_path, intended(), MADE_FROM)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "name",
    [".DS_Store", "._config", "Thumbs.db", "desktop.ini", "nohup.out", "slurm-12_5.out", "run.log", ".nfs01"],
)
def test_what_a_desktop_a_shell_or_a_scheduler_left_is_no_obstacle(tmp_path, name):
    (tmp_path / name).write_text("left")
    ownership.refuse_foreign(tmp_path)
    ownership.claim(tmp_path, intended(), MADE_FROM)
    assert {path.name for path in tmp_path.iterdir()} == {name, "config.json"}
    assert (tmp_path / name).read_text() == "left"


@pytest.mark.parametrize("name", ["thesis.log.tex", "slurm.sh", "a.out", "logs", ".git"])
def test_what_somebody_made_is_one(tmp_path, name):
    (tmp_path / "run.log").write_text("left")
    (tmp_path / name).write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        ownership.refuse_foreign(tmp_path)


def test_a_folder_is_no_log(tmp_path):
    (tmp_path / "all.log").mkdir()
    with pytest.raises(UserError, match="holds other files"):
        ownership.refuse_foreign(tmp_path)


def test_a_file_is_no_directory(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="which holds other files"):
        ownership.claim(tmp_path / "file", intended(), MADE_FROM)
    with pytest.raises(UserError, match="cannot be used"):
        ownership.claim(tmp_path / "file" / "below", intended(), MADE_FROM)


def test_a_run_killed_while_it_claimed_its_directory_may_start_again(tmp_path):
    (tmp_path / ".config.json.part").write_text('{"config": {"meth')
    ownership.claim(tmp_path, intended(), MADE_FROM)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [("{", "is damaged"), ("", "is damaged"), ("[]", "holds no configuration"), ("{}", "holds no configuration")],
)
def test_a_damaged_record_is_named(tmp_path, content, reason):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(UserError, match=reason):
        ownership.claim(tmp_path, intended(), MADE_FROM)


def test_a_directory_without_a_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"config\.json cannot be read \(No such file or directory\)"):
        ownership.read(tmp_path)
