"""What several test files share: a tiny random CLIP, small runs on it, and streams made by hand."""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

# The suite would spend most of its time on compiling small programs: they are compiled without optimisation, in all
# processes alike. (`.ci/run` runs from the command line as users do.) What is set outside comes first.
os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false")

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from ml_collections import ConfigDict

from lpi_jax import config as configs
from lpi_jax.data.stream import Split, Stream, Task
from lpi_jax.experiment.progress import Progress, restore
from lpi_jax.models import weights
from lpi_jax.models.clip import CLIPConfig, TowerConfig
from lpi_jax.models.clip_start import init_params
from lpi_jax.run import continual
from lpi_jax.workdir import checkpoint
from tests.support.pixels import loading
from tests.support.splits import split_of

ROOT = Path(__file__).parents[1]
TOKENIZER_FILES = ("vocab.json", "merges.txt", "tokenizer_config.json")


class Run(NamedTuple):
    """A finished run."""

    config: ConfigDict
    directory: Path
    results: dict[str, Any]


@pytest.fixture(scope="session", autouse=True)
def temporary_folder(tmp_path_factory) -> Iterator[None]:
    """Temporary files of libraries stay with those of the tests: TFDS, for one, leaves a folder for every builder."""
    tempfile.tempdir = str(tmp_path_factory.mktemp("temporary"))
    yield
    tempfile.tempdir = None


@pytest.fixture(scope="session", autouse=True)
def users_cache(tmp_path_factory) -> Iterator[None]:
    """What is kept for later starts stays with the tests' files too; this process keeps compiled programs there."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory) -> Path:
    """The directory of a small CLIP with random weights and the bundled tokenizer."""
    directory = tmp_path_factory.mktemp("tiny_clip")
    for name in TOKENIZER_FILES:
        shutil.copy(ROOT / "lpi_jax" / "assets" / "tiny_clip" / name, directory)
    words = len(json.loads((directory / "vocab.json").read_text(encoding="utf-8")))
    config = CLIPConfig(
        image_size=32,
        patch_size=8,
        embed_dim=16,
        vision=TowerConfig(32, 2, 2, 64),
        text=TowerConfig(24, 2, 2, 48),
        vocab_size=words,
    )
    weights.save(directory, config, init_params(config, jax.random.key(0)))
    return directory


@pytest.fixture(scope="session")
def small_settings(tiny_clip) -> dict[str, Any]:
    """What makes a run small, by key of the configuration: three domains, six steps each."""
    return {
        "backbone": str(tiny_clip),
        "data.domains": ("comic", "fax", "aerial"),
        "data.train": 16,
        "data.val": 8,
        "data.max_words": 10,  # captions of like length: one compiled step
        "method.length": 4,
        "method.layers": 2,
        "method.depth": 2,
        "train.epochs": 2,
        "train.batch": 16,
        "train.checkpoint_every": 2,
        "train.log_every": 1,
        "routing.centres": 3,
        "eval.batch": 32,
    }


@pytest.fixture(scope="session")
def compiled(tmp_path_factory) -> Iterator[dict[str, str]]:
    """Keeps compiled programs for the small runs of this session; the environment that lets a process use them too."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.05,
        "jax_persistent_cache_min_entry_size_bytes": -1,
        "jax_compilation_cache_max_size": -1,  # as in the other processes, which are told only of these
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # or the first compilation of the session has decided that there is none
    yield {name.upper(): str(value) for name, value in settings.items()}
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def make_config(small_settings, compiled) -> Callable[..., ConfigDict]:
    """(changes by key) -> the configuration of a small run."""

    def make(changes: Mapping[str, Any] | None = None) -> ConfigDict:
        config = configs.intended()
        config.update_from_flattened_dict({**small_settings, **(changes or {})})
        return config

    return make


@pytest.fixture(scope="session")
def finished_run(make_config, tmp_path_factory) -> Run:
    """A small run as it ends when nothing disturbs it. Read only: copy the directory to change it."""
    directory = tmp_path_factory.mktemp("runs") / "finished"
    config = make_config()
    return Run(config, directory, continual.run(config, directory))


@pytest.fixture
def copied_run(finished_run, tmp_path) -> Run:
    """The finished run in a directory that may be damaged."""
    directory = tmp_path / "copy"
    shutil.copytree(finished_run.directory, directory)
    return finished_run._replace(directory=directory)


@pytest.fixture(scope="session")
def read_progress() -> Callable[[Path], Progress]:
    """(directory) -> what a run's newest boundary checkpoint holds."""
    return lambda directory: restore(checkpoint.Checkpoints(directory))


@pytest.fixture(scope="session")
def toy_stream() -> Callable[..., Stream]:
    """(tasks, train, val, captions, words, description) -> a stream of noise; all captions differ and are as long."""

    def make(
        tasks: int = 2,
        train: int = 16,
        val: int = 4,
        captions: int = 1,
        words: str = "zigzag vortex picture {:02d} {:02d} {:d}",
        description: Callable[[int], str] = "a task of kind {}".format,
    ) -> Stream:
        def split(task: int, first: int, count: int) -> Split:
            pictures = np.random.default_rng([task, first]).integers(0, 256, (count, 32, 32, 3), np.uint8)
            numbers = range(first, first + count)
            spoken = tuple(tuple(words.format(task, i, j) for j in range(captions)) for i in numbers)
            return split_of(tuple(f"{task}/{i}" for i in numbers), spoken, loading(pictures))

        return Stream(
            "toys",
            tuple(Task(f"toy {t}", description(t), split(t, 0, train), split(t, train, val)) for t in range(tasks)),
            fingerprint=f"{tasks} {train} {val} {captions} {words}",
        )

    return make


@pytest.fixture(scope="session")
def decided() -> Callable[[dict[str, Any]], dict[str, Any]]:
    """(results) -> what of them the configuration decides: all but the clock and the memory."""
    return lambda results: {k: v for k, v in results.items() if k not in ("seconds", "peak_memory_mb")}
