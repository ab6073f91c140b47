"""What the tests of instruction following share: a small LLaVA on disk, and small runs on it."""

import pytest

from lpi_jax import config as configs
from lpi_jax.experiment.experiment import assemble
from lpi_jax.run import continual
from tests.conftest import Run
from tests.support import small_llava


@pytest.fixture(scope="session")
def llava_directory(tmp_path_factory):
    """The directory of a small LLaVA with random weights, its CLIP inside."""
    return small_llava.written(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="session")
def asked_settings(llava_directory):
    """What makes a run small, by key of the configuration: three tasks, four steps each."""
    return {
        "backbone": str(llava_directory),
        "problem.system": "",
        "data.tasks": ("count", "larger", "presence"),
        "data.train": 16,
        "data.val": 6,
        "method.sets": 2,
        "method.prompts": 3,
        "train.epochs": 2,
        "train.batch": 8,
        "train.lr": 0.02,
        "train.checkpoint_every": 2,
        "train.log_every": 1,
        "eval.max_new": 5,
        "eval.batch": 16,
    }


@pytest.fixture(scope="session")
def make_asked(asked_settings, compiled):
    """(changes by key) -> the configuration of a small run of ModalPrompt."""

    def make(changes=None, preset="intended"):
        config = configs.preset(preset, "modalprompt")
        config.update_from_flattened_dict({**asked_settings, **(changes or {})})
        return config

    return make


@pytest.fixture(scope="session")
def answered_run(make_asked, tmp_path_factory):
    """A small run as it ends when nothing disturbs it. Read only: copy the directory to change it."""
    directory, config = tmp_path_factory.mktemp("runs") / "answered", make_asked()
    return Run(config, directory, continual.run(config, directory))


@pytest.fixture(scope="session")
def asked_experiment(make_asked):
    """What that run is made of."""
    return assemble(make_asked())
