"""The command line: what it does, and that every mistake ends in one sentence, status 2 and nothing written."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lpi_jax import config as configs
from lpi_jax.config import command_line
from lpi_jax.errors import UserError
from lpi_jax.main import main
from lpi_jax.run import continual

ROOT = Path(__file__).parents[2]
BUNDLED_FITS = [f"--config.method.{key}=0" for key in ("length", "layers", "depth")]
COCO12 = ROOT / "lpi_jax" / "assets" / "coco12_similarity.csv"


@pytest.fixture
def config_file(tmp_path):
    """(text) -> the path of a configuration file that holds it; by default one of the presets, unchanged."""

    def write(
        text="from lpi_jax import config\n\n\ndef get_config(preset='intended'):\n    return config.preset(preset)\n",
    ):
        path = tmp_path / "experiment.py"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def refused(capfd, config_file, tmp_path):
    """(arguments, ...) -> the one sentence said; --config and --workdir are added where they are not given."""

    def refuse(*arguments):
        given = {argument.partition("=")[0] for argument in arguments}
        usual = [] if "--config" in given else [f"--config={config_file()}"]
        usual += [] if "--workdir" in given else [f"--workdir={tmp_path / 'run'}"]
        before = {*tmp_path.rglob("*")}
        status = main(["lpi_jax.main", *usual, *arguments])
        out, err = capfd.readouterr()
        assert status == 2
        assert out == ""
        assert err.startswith("error: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        assert {*tmp_path.rglob("*")} == before
        return err.removeprefix("error: ").removesuffix("\n")

    return refuse


@pytest.fixture(scope="session")
def small_flags(small_settings):
    """The small run's settings as they stand on a command line."""
    return [f"--config.{key}={value}" for key, value in small_settings.items()]


# ---- help ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], ["--config=nosuch.py", "--help"]])
def test_help_explains_flags_and_keys(capfd, arguments):
    assert main(["lpi_jax.main", *arguments]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    for word in ("--config=FILE[:PRESET]", "--config.KEY=VALUE", "--workdir=DIR", "released", "Kind of a key"):
        assert word in out
    for key in configs.flat(configs.intended()):
        assert f"  {key} = " in out
    assert "  train.lr = 0.05\n" in out
    assert max(map(len, out.splitlines())) <= 100


# ---- flags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--config.train.lrr=1"], "config has no key 'train.lrr'; the closest is 'train.lr'"),
        (["--config.tran.lr=1"], "config has no key 'tran.lr'; the closest is 'train.lr'"),
        (["--config.lr=1"], "config has no key 'lr'; the closest is 'train.lr'"),
        (["--config.sed=1"], "config has no key 'sed'; the closest is 'seed'"),
        (["--config.method=lpi"], "config.method is called config.method.name now; use --config.method.name=..."),
        (["--config.prompt.rank=2"], "config.prompt.rank is called config.method.rank now; use --config.method.rank="),
        (["--config.data.flip.x=1"], "config has no key 'data.flip.x'; the closest is 'data.flip'"),
        (["--config.train.=1"], "config has no key 'train.'; the closest is "),
        (["--conifg=x.py"], "--conifg is not a flag; did you mean --config? --help lists all"),
        (["--workdri=x"], "--workdri is not a flag; did you mean --workdir? --help lists all"),
        (["--train.lr=1"], "--train.lr is not a flag; did you mean --config.train.lr? --help lists all"),
        (["--lr", "1"], "--lr is not a flag; did you mean --config.train.lr? --help lists all"),
        (["--noconfig.data.flip"], "--noconfig.data.flip is not a flag; did you mean --config.data.flip?"),
        (["scenes"], "the argument 'scenes' was not expected; every flag begins with --"),
        (["--"], "the argument '--' was not expected"),
        (["-1"], "the argument '-1' was not expected"),
        (["--config="], "--config is missing; --help explains it"),
        (["--config"], "--config is missing; --help explains it"),
        (["--workdir="], "--workdir is missing; --help explains it"),
        (["--config.train.lr"], "--config.train.lr has no value; expected --config.train.lr=VALUE"),
        (["--config.train.lr", "--config.seed=1"], "--config.train.lr has no value"),
        (
            ["--config.train=3"],
            "config.train is a group of keys; expected one of them: accumulate, batch, batches,",
        ),
        (["--config.preset=released"], "config.preset only records which preset was used; choose one by --config=FILE"),
    ],
)
def test_a_wrong_flag_is_one_sentence(refused, arguments, sentence):
    assert refused(*arguments).startswith(sentence)


def test_no_flags_at_all_is_one_sentence(capfd):
    assert main(["lpi_jax.main"]) == 2
    assert capfd.readouterr().err == "error: --config is missing; --help explains it\n"


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("train.lr=abc", "config.train.lr is 'abc', expected a number"),
        ("train.lr=", "config.train.lr is '', expected a number"),
        ("train.lr=nan", "config.train.lr is nan, expected a finite number"),
        ("train.lr=-0.1", "config.train.lr is -0.1, expected at least 0"),
        ("train.epochs=1.5", "config.train.epochs is '1.5', expected a whole number"),
        ("train.epochs=0", "config.train.epochs is 0, expected at least 1"),
        ("data.flip=maybe", "config.data.flip is 'maybe', expected true or false"),
        ("data.crop_scale=0.5", "config.data.crop_scale is (0.5,), expected two numbers"),
        ("data.crop_scale=a,b", "config.data.crop_scale is 'a,b', expected values separated by commas"),
        ("data.domains=('fax'", "config.data.domains is \"('fax'\", expected values separated by commas"),
        ("train.optimizer_args=0.9", "config.train.optimizer_args is '0.9', expected a dictionary such as"),
        ("task_id=orakel", "config.task_id is 'orakel', expected 'inferred' or 'oracle'"),
        ("train.schedule=linear", "config.train.schedule is 'linear', expected 'cosine' or 'smooth' or"),
        ("method.depth=10", "config.method.depth is 10, expected at most config.method.layers, 9"),
    ],
)
def test_a_wrong_value_is_one_sentence(refused, argument, sentence):
    assert refused(f"--config.{argument}").startswith(sentence)


def test_flags_and_values_may_be_written_in_several_ways(config_file):
    file = str(config_file())
    config, workdir = command_line.parse(
        [
            "--config.seed=3",  # before the file it changes
            "--config",
            f"{file}:released",
            "-workdir=some where",
            "--config.train.lr",
            "1",
            "--config.data.name=jsonl",
            "--config.data.task_order=('a, b', 'c')",
            "--config.data.crop_scale=0.5,1",
            "--config.data.flip=False",
            "--config.method.interaction",
            "--config.data.path=/data/a=b.jsonl",
            "--config.train.epochs=2",
            "--config.train.epochs=3",  # the last one counts
            "--config.train.optimizer=adamw",
            "--config.train.optimizer_args={'b1': 0.8}",
            "--config.train.optimizer_args.b2=0.99",
        ]
    )
    assert workdir == "some where"
    assert config.preset == "released"
    assert config.seed == 3
    assert config.train.lr == 1.0
    assert isinstance(config.train.lr, float)
    assert config.data.task_order == ("a, b", "c")
    scenes, _ = command_line.parse([f"--config={file}", "--workdir=x", "--config.data.domains=fax, comic"])
    assert scenes.data.domains == ("fax", "comic")
    assert config.data.crop_scale == (0.5, 1.0)
    assert config.data.flip is False
    assert config.method.interaction is True
    assert config.data.path == "/data/a=b.jsonl"
    assert config.train.epochs == 3
    assert config.train.optimizer_args.to_dict() == {"b1": 0.8, "b2": 0.99}


def test_every_key_can_be_given_its_own_value_again(config_file):
    values = configs.flat(configs.intended())
    changed = [f"--config.{key}={value}" for key, value in values.items() if key != "preset"]
    config, _ = command_line.parse([f"--config={config_file()}", "--workdir=x", *changed])
    assert configs.flat(config) == values


# ---- the configuration file ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("def get_config(:\n", ", line 1: invalid syntax"),
        ("x = 1\n  y = 2\n", ", line 2: unexpected indent"),
        (b"x = '\xff'\n", ", line 1: (unicode error)"),
        ("x = 1\n", ": the file defines no function get_config()"),
        ("get_config = 3\n", ": the file defines no function get_config()"),
        ("def get_config():\n    return {'seed': 1}\n", ": get_config() returned dict, expected an ml_collections.Con"),
        ("def get_config():\n    pass\n", ": get_config() returned NoneType, expected"),
        ("def get_config(preset):\n    pass\n", ": its get_config() needs a preset behind a colon, FILE:PRESET"),
        ("import nosuchmodule\n", ", line 1: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("\n\ndef get_config():\n    return 1 / 0\n", ", line 4: ZeroDivisionError: division by zero"),
        (
            "from lpi_jax import config\n\ndef get_config():\n    config.intended().train.lrr = 1\n",
            ", line 4: there is no key 'lrr' in the configuration; the closest is 'lr'",
        ),
        (
            "from lpi_jax import config\n\ndef get_config():\n    config.intended().seed = 'x'\n",
            ", line 4: TypeError: Could not override field 'seed'",
        ),
        ("from lpi_jax import config\ndef get_config():\n    return config.preset('x')\n", ": preset is 'x', expected"),
    ],
)
def test_a_damaged_configuration_file_is_named_with_its_line(refused, config_file, tmp_path, text, sentence):
    file = config_file(text)
    message = refused(f"--config={file}")
    assert message.startswith(f"{file}{sentence}")


@pytest.mark.parametrize("what", ["nosuch.py", ".", "experiment.py/x"])
def test_a_configuration_file_that_is_not_there_is_named(refused, config_file, tmp_path, what):
    config_file()
    path = tmp_path / what
    message = refused(f"--config={path}")
    assert message.startswith(f"--config is '{path}', which cannot be read (")
    assert message.endswith("; expected a file such as configs/scenes_lpi.py")


def test_a_preset_that_does_not_exist_is_named(refused, config_file):
    file = config_file()
    assert refused(f"--config={file}:releasd") == (
        f"{file}: preset is 'releasd', expected one of anchored, intended, released;"
        f" did you mean --config={file}:released?"
    )


def test_a_file_without_presets_is_told_from_one_with(refused, config_file):
    file = config_file("from lpi_jax import config\n\nget_config = config.intended\n")
    assert refused(f"--config={file}:released") == f"{file}: its get_config() takes no preset behind a colon"


def test_a_configuration_made_without_a_preset_is_checked_key_by_key(refused, config_file):
    file = config_file(
        "from ml_collections import ConfigDict\n\n\ndef get_config():\n    return ConfigDict({'sed': 1})\n"
    )
    assert refused(f"--config={file}") == "config has no key 'sed'; the closest is 'seed'"


def test_loading_a_configuration_file_leaves_no_trace(config_file, tmp_path):
    command_line.load(str(config_file()))
    assert [path.name for path in tmp_path.iterdir()] == ["experiment.py"]


# ---- what fits in itself, but not with the backbone, the data or the machine -----------------------------------------


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("method.name=lpl", "config.method.name is 'lpl', expected one of lpi, l2p, lora,"),
        ("data.name=scene", "config.data.name is 'scene', expected one of scenes, jsonl, coco"),
        ("data.domains=faks", "scenes: unknown domain 'faks'; did you mean 'fax'?"),
        ("data.domains=fax,fax", "scenes: domain 'fax' is given 2 times; expected once"),
        ("devices=99", "config.devices is 99, expected 0 (all) to "),
        (
            "train.batch=49",
            "task 'comic' has 48 training examples, too few for a batch: config.train.batch is 49; use"
            " --config.train.batch=48",
        ),
        (
            "data.train=2",
            "task 'comic' has 6 training examples, too few for a batch: config.train.batch is 16; use"
            " --config.train.batch=6",
        ),
        ("method.length=40", "config.method.length is 40, too long for a context of 77 tokens and 16 patches"),
        ("train.optimizer=sdg", "config.train.optimizer is 'sdg', expected 'sgd' or the name of an optax optimiser"),
        ("train.optimizer_args={'momentun': 0.9}", "config.train.optimizer_args do not fit optimiser 'sgd': "),
        (
            "train.optimizer_args={'momentum': 0.9, 'b1': 0.8}",
            "config.train.optimizer_args do not fit optimiser 'sgd': _pytorch_sgd() got an unexpected keyword argument"
            " 'b1'; it takes momentum, weight_decay: use --config.train.optimizer_args=\"{'momentum': 0.9}\"",
        ),
        ("train.optimizer_args={'momentum': 'x'}", "config.train.optimizer_args do not fit optimiser 'sgd': "),
        ("method.similarity={coco}", "similarity table {coco} has no entry for task 'comic'"),
        ("method.similarity=nosuch.csv", "similarity table nosuch.csv cannot be read: No such file or directory"),
        ("train.optimizer=chain", "config.train.optimizer_args do not fit optimiser 'chain': "),
    ],
)
def test_what_does_not_fit_together_is_one_sentence(refused, small_flags, argument, sentence):
    argument, sentence = (text.replace("{coco}", str(COCO12)) for text in (argument, sentence))
    assert refused(*small_flags, f"--config.{argument}").startswith(sentence)


def test_more_prompt_layers_than_the_tower_has_is_one_sentence(refused, small_flags):
    message = refused(*small_flags, "--config.method.layers=3", "--config.method.depth=3")
    assert message == (
        "config.method.depth is 3, but the vision tower has 2 layers; use --config.method.depth=2, or"
        " --config.method.depth=0 for as many as there are"
    )


@pytest.mark.parametrize("key", ["backbone", "tokenizer"])
def test_a_missing_backbone_or_tokenizer_is_named(refused, small_flags, tmp_path, key):
    missing = tmp_path / "no" / "such"
    message = refused(*small_flags, f"--config.{key}={missing}")
    assert message == f"{missing} does not exist; expected a checkpoint directory, a checkpoint file or a hub id"


def test_a_source_without_its_path_is_named(refused):
    message = refused("--config.data.name=jsonl", *BUNDLED_FITS)
    assert message == "config.data.path is empty, expected the path of a JSON Lines file"


def test_a_missing_stream_is_named(refused, tmp_path):
    path = tmp_path / "nosuch.jsonl"
    message = refused("--config.data.name=jsonl", f"--config.data.path={path}", *BUNDLED_FITS)
    assert message == f"{path}: there is no such file; expected a JSON Lines file, one line per image"


# ---- the run's directory ---------------------------------------------------------------------------------------------


def test_a_workdir_that_is_a_file_or_holds_other_files_is_left_alone(refused, small_flags, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.tex").write_text("precious")
    for name in ("thesis", "thesis/chapter1.tex"):
        message = refused(*small_flags, f"--workdir={tmp_path / name}")
        assert message == (
            f"--workdir is {tmp_path / name}, which holds other files; expected a new or empty folder, or a run's"
        )
    assert (tmp_path / "thesis" / "chapter1.tex").read_text() == "precious"


def test_a_workdir_that_cannot_be_made_is_named(refused, small_flags, tmp_path):
    (tmp_path / "file").write_text("")
    message = refused(*small_flags, f"--workdir={tmp_path / 'file' / 'run'}")
    assert message == f"--workdir is {tmp_path / 'file' / 'run'}, which cannot be used: Not a directory"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_workdir_that_cannot_be_written_is_named(refused, small_flags, tmp_path):
    (tmp_path / "locked").mkdir(mode=0o500)
    message = refused(*small_flags, f"--workdir={tmp_path / 'locked'}")
    assert message.endswith("which cannot be used: Permission denied")


def test_a_workdir_of_another_run_shows_the_difference(refused, small_flags, finished_run):
    message = refused(*small_flags, "--config.train.lr=0.07", f"--workdir={finished_run.directory}")
    assert message == (
        f"{finished_run.directory} holds another run: config.train.lr is 0.05 there and 0.07 here; choose another"
        " --workdir"
    )


def test_a_finished_run_only_prints_its_table(capfd, config_file, small_flags, finished_run):
    before = {path: path.stat().st_mtime_ns for path in finished_run.directory.rglob("*")}
    arguments = [f"--config={config_file()}", f"--workdir={finished_run.directory}", *small_flags]
    assert main(["lpi_jax.main", *arguments]) == 0
    out = capfd.readouterr().out
    recall = finished_run.results["metrics"]["image_to_text/R@1"]["final_average"]
    assert f"| LPI intended | 1 | final | {recall:.1f} |" in out
    assert "| zero-shot | 1 | final |" in out
    assert out.endswith(f"Results: {finished_run.directory}/results.json\n")
    assert {path: path.stat().st_mtime_ns for path in finished_run.directory.rglob("*")} == before


# ---- what is not the user's mistake ----------------------------------------------------------------------------------


@pytest.fixture
def run_that(monkeypatch, config_file, tmp_path):
    """(exception) -> the status of a command whose run raises it."""

    def run(exception):
        def fail(config, directory):
            raise exception

        monkeypatch.setattr(continual, "run", fail)
        return main(["lpi_jax.main", f"--config={config_file()}", f"--workdir={tmp_path / 'run'}"])

    return run


@pytest.mark.parametrize("bug", [ZeroDivisionError("x"), ValueError("x"), KeyError("x"), OSError("x")], ids=repr)
def test_a_bug_keeps_its_traceback(run_that, bug):
    with pytest.raises(type(bug)) as raised:
        run_that(bug)
    assert raised.value is bug


def test_a_sentence_stays_on_one_line(run_that, capfd):
    assert run_that(UserError("the first line\nthe second  line")) == 2
    assert capfd.readouterr().err == "error: the first line the second  line\n"


def test_ctrl_c_says_how_to_go_on(run_that, capfd):
    assert run_that(KeyboardInterrupt()) == 130
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "interrupted; the same command goes on from the last checkpoint\n"


def test_a_run_that_saved_itself_ends_with_its_own_status(run_that):
    with pytest.raises(SystemExit) as ended:
        run_that(SystemExit(128 + signal.SIGTERM))
    assert ended.value.code == 143


def test_the_module_is_a_command(tmp_path):
    """A process of its own: status and streams as a shell sees them."""
    command = [sys.executable, "-m", "lpi_jax.main", "--config=configs/scenes_lpi.py", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run([*command, "--config.train.lrr=1"], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "error: config has no key 'train.lrr'; the closest is 'train.lr'\n"
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("told", "reason"),
    [
        ({}, "coordinator_address should be defined."),
        ({"JAX_COORDINATOR_ADDRESS": "localhost:1234"}, "Number of processes must be defined."),
        (
            {"JAX_COORDINATOR_ADDRESS": "localhost", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"},
            "list index out of range",
        ),
        (
            {"JAX_COORDINATOR_ADDRESS": "localhost:1234", "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "second"},
            "invalid literal for int() with base 10: 'second'",
        ),
    ],
)
def test_one_of_several_processes_must_be_told_of_the_others(tmp_path, told, reason):
    """Processes of their own: JAX looks for others only before it is used."""
    clusters = ("JAX_COORDINATOR", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "SLURM", "OMPI", "PMIX", "KUBERNETES")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(clusters)}
    command = [sys.executable, "-m", "lpi_jax.main", "--config=configs/scenes_lpi.py", f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(
        [*command, "--config.distributed=true"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**environment, "JAX_PLATFORMS": "cpu", **told},
        timeout=120,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: config.distributed is True, but the other processes were not found ({reason}); expected a TPU pod,"
        " Slurm, Open MPI, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID\n"
    )
    assert not (tmp_path / "run").exists()
