"""Several processes that run one command: really started, on this machine, connected by gloo.

What the processes do is written here as functions (`everything`, `refusals`, `alone`), which they import.
"""

import contextlib
import io
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from lpi_jax import config as configs
from lpi_jax.errors import UserError
from lpi_jax.main import main
from lpi_jax.methods import routing, zero_shot
from lpi_jax.models import weights
from lpi_jax.models.clip import CLIP
from lpi_jax.models.clip_start import init_params
from lpi_jax.models.tokenizer import Tokenizer
from lpi_jax.parallel import mesh as meshes
from lpi_jax.parallel import processes
from lpi_jax.problems.retrieval.adapters import Group
from lpi_jax.problems.retrieval.encoder import Encoder
from lpi_jax.problems.retrieval.towers import Towers
from lpi_jax.workdir import ownership
from tests.support.together import Ended, Together, calling, command_line, flags

# ---------------------------------------------------------------------------- what two processes find: done by each one

LENGTHS = (0, 1, 4070, 4080, 4090, 4100, 8190, 70_001)  # of a text; with what JSON puts around it on both sides of 4096
LONG = "much to say: " + "äöü" * 5000
FAILURES = {
    "mistake": lambda: _raise(UserError("stream.jsonl: line 3 holds 'ä', expected an object")),
    "long mistake": lambda: _raise(UserError(LONG)),
    "bug": lambda: _raise(ZeroDivisionError("by zero")),
    "silent bug": lambda: _raise(KeyError()),
    "no JSON": lambda: {1, 2},
}
DIFFERENCES = {  # what the two processes bring to compare
    "nothing": [{"a": [1, None, "ä"], "b": {"x": 1, "y": 2}}, {"b": {"y": 2, "x": 1}, "a": [1, None, "ä"]}],
    "nothing at all": [{}, {}],
    "one": [{"a": 1, "stream": "5" * 64}, {"a": 1, "stream": "6" * 64}],
    "two": [{"a": 1, "b": 2, "c": 3}, {"a": 2, "b": 2, "c": 4}],
    "more in the second": [{"a": 1}, {"a": 1, "similarity": "x" * 10_000}],
    "more in the first": [{"a": 1, "similarity": None}, {"a": 1}],
}
COUNTS = (1, 7, 8, 9, 37)  # pictures and captions, in batches of 8
BATCH = 8
PICTURES = np.random.default_rng(0).integers(0, 256, (max(COUNTS), 32, 32, 3), np.uint8)
ORDER = np.random.default_rng(1).permutation(max(COUNTS))
CAPTIONS = [f"{'a red circle left of ' * (i % 2)}a blue square {i}" for i in range(max(COUNTS))]


def arrays() -> dict[str, Any]:
    """A tree of arrays in which every bit counts."""
    rng = np.random.default_rng(0)
    floats = np.array([0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 1e-39, np.finfo(np.float32).max], np.float32)
    nans = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF, 0x7FC12345], np.uint32).view(np.float32)
    sizes = [1, *(power + more for power in (4096, 8192, 65536) for more in (-1, 0, 1))]
    return {
        "floats": (floats, nans, floats[:4].astype(np.float16), np.array([-0.0, 5e-324, np.nan])),
        "integers": [np.array([-(2**31), -1, 0, 2**31 - 1], np.int32), np.arange(256, dtype=np.uint8)],
        "booleans": np.array([[True, False], [False, True]]),
        "single": [np.array(-0.0, np.float32), np.array(-7, np.int32), np.array(True)],
        "empty": [np.zeros(0, np.float32), np.zeros((3, 0, 2), np.int32)],
        "transposed": np.arange(6, dtype=np.int32).reshape(2, 3).T,
        "sizes": [rng.integers(0, 256, size).astype(np.uint8) for size in sizes],
    }


def everything(folder: str, backbone: str) -> None:
    """What `hosts`, `mesh` and `encode` do in this process, as files in `folder`."""
    processes.start()
    processes.start()  # a second time does no harm
    process = jax.process_index()
    tree = arrays() if process == 0 else jax.tree.map(lambda leaf: np.full_like(leaf, 1), arrays())
    copied = processes.copied(tree)
    features, loaded = encoded(backbone)
    mesh = meshes.make_mesh()
    rows = np.arange(24, dtype=np.int32).reshape(8, 3)
    placed = meshes.put_rows({"own": rows[4 * process : 4 * process + 4]}, mesh)["own"]
    everywhere = meshes.put_replicated(rows, mesh)
    found = {
        "first": processes.first(),
        "agreed": [_told(lambda n=n: {"process": process, "text": "ä" * n, "list": [1.5, None]}) for n in LENGTHS],
        "failures": {name: _told(make) for name, make in FAILURES.items()},
        "anywhere": [processes.anywhere(flag) for flag in (False, process == 1, process == 0, True, False)],
        "differences": {name: _refusal(pair[process]) for name, pair in DIFFERENCES.items()},
        "same tree": jax.tree.structure(copied) == jax.tree.structure(tree),
        "writeable": all(leaf.flags.writeable for leaf in jax.tree.leaves(copied)),
        "loaded": loaded,
        "mesh": [device.process_index for device in mesh.devices.flat],
        "uneven": {devices: _uneven(devices) for devices in (1, 3, 4, 5)},
        "shape": placed.shape,
        "rows": {shard.index[0].start: shard.data.tolist() for shard in placed.addressable_shards},
        "everywhere": [shard.data.tolist() for shard in everywhere.addressable_shards],
    }
    np.savez(f"{folder}/copied{process}.npz", *jax.tree.leaves(copied))
    np.savez(f"{folder}/features{process}.npz", **features)
    Path(folder, f"{process}.json").write_text(json.dumps(found), encoding="utf-8")


def encoded(backbone: str) -> tuple[dict[str, np.ndarray], dict[str, list[int]]]:
    """Features by kind, number of items and prompts; and which pictures this process loaded for them."""
    config, params = weights.load(backbone)
    ids, _ = Tokenizer.load(backbone).encode(CAPTIONS, 4, config.context_length)
    mesh, rng = meshes.make_mesh(), np.random.default_rng(2)
    towers, method = Towers(CLIP(config), (0.5,) * 3, (0.25,) * 3), zero_shot.build(None, {}, routing.Options())
    encoder = Encoder(towers, meshes.put_replicated(params, mesh), method, mesh, BATCH)
    prompts = [rng.normal(size=(1, 2, 4, tower.width)).astype(np.float32) for tower in (config.vision, config.text)]
    features, loaded = {}, {}
    for count in COUNTS:
        for name, tables in {"plain": (None, None), "prompted": prompts}.items():
            visual, textual = (None if own is None else Group(None, encoder.frozen, own) for own in tables)
            seen = loaded[f"{count} {name}"] = []
            load = lambda item, seen=seen: (seen.append(int(item)), PICTURES[item])[1]  # noqa: E731
            features[f"images {count} {name}"] = encoder.images(load, ORDER[:count], visual)
            features[f"texts {count} {name}"] = encoder.texts(ids[:count], textual)
    return features, loaded


def _raise(error: Exception) -> None:
    raise error


def _told(make: Callable[[], Any]) -> dict[str, Any]:
    """What `agreed` returned or raised here, and how often it called `make`."""
    calls = []
    try:
        return {"value": processes.agreed(lambda: (calls.append(1), make())[1]), "calls": len(calls)}
    except Exception as error:
        return {"kind": type(error).__name__, "says": str(error), "calls": len(calls)}


def _refusal(values: dict[str, Any]) -> str | None:
    try:
        return processes.refuse_differences(values)
    except UserError as error:
        return str(error)


def _uneven(devices: int) -> str | None:
    try:
        meshes.make_mesh(devices)
    except UserError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def two(tiny_clip, tmp_path_factory) -> tuple[list[dict[str, Any]], Path]:
    """What each of two processes with two devices found, and the folder of their arrays."""
    folder = tmp_path_factory.mktemp("two")
    with Together(folder, [calling(everything, folder, tiny_clip)] * 2, devices=2) as together:
        assert [process.status for process in together.ended()] == [0, 0], together.said()
    return [json.loads((folder / f"{number}.json").read_text(encoding="utf-8")) for number in range(2)], folder


def test_only_the_first_is_the_first(two):
    assert [found["first"] for found in two[0]] == [True, False]
    assert processes.first()


def test_what_the_first_makes_is_told_to_all_whatever_its_length(two):
    (first, second), _ = two
    expected = [{"process": 0, "text": "ä" * n, "list": [1.5, None]} for n in LENGTHS]
    assert [told["value"] for told in first["agreed"]] == [told["value"] for told in second["agreed"]] == expected
    assert [told["calls"] for told in first["agreed"]] == [1] * len(LENGTHS)
    assert [told["calls"] for told in second["agreed"]] == [0] * len(LENGTHS)
    sizes = {len(json.dumps({"value": value})) for value in expected}
    assert min(sizes) < 4096 < max(sizes)


@pytest.mark.parametrize(
    ("name", "text"), [("mistake", "stream.jsonl: line 3 holds 'ä', expected an object"), ("long mistake", LONG)]
)
def test_a_mistake_that_the_first_finds_is_the_same_mistake_in_all(two, name, text):
    (first, second), _ = two
    assert first["failures"][name] == {"kind": "UserError", "says": text, "calls": 1}
    assert second["failures"][name] == {"kind": "UserError", "says": text, "calls": 0}


@pytest.mark.parametrize(
    ("name", "kind", "text"),
    [
        ("bug", "ZeroDivisionError", "by zero"),
        ("silent bug", "KeyError", ""),
        ("no JSON", "TypeError", "Object of type set is not JSON serializable"),
    ],
)
def test_another_exception_is_itself_in_the_first_and_ends_the_others(two, name, kind, text):
    (first, second), _ = two
    assert first["failures"][name] == {"kind": kind, "says": text, "calls": 1}
    assert second["failures"][name] == {"kind": "RuntimeError", "says": text, "calls": 0}


def test_arrays_are_copied_bit_for_bit(two):
    found, folder = two
    expected = jax.tree.leaves(arrays())
    for process in range(2):
        assert found[process]["same tree"] and found[process]["writeable"]
        with np.load(folder / f"copied{process}.npz") as copied:
            assert len(copied.files) == len(expected)
            for own, leaf in zip(copied.values(), expected, strict=True):
                assert (own.dtype, own.shape, own.tobytes()) == (leaf.dtype, leaf.shape, leaf.tobytes())


def test_a_flag_set_anywhere_is_set_everywhere(two):
    assert [found["anywhere"] for found in two[0]] == [[False, True, True, True, False]] * 2


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("nothing", None),
        ("nothing at all", None),
        ("one", "another stream"),
        ("two", "another a and another c"),
        ("more in the second", "another similarity"),
        ("more in the first", "another similarity"),
    ],
)
def test_a_difference_is_named_with_its_process_in_both(two, name, what):
    expected = what and (
        f"process 1 has {what} than process 0; expected all processes to run the same command on the same files"
    )
    assert [found["differences"][name] for found in two[0]] == [expected] * 2


def test_one_process_is_asked_nothing():
    tree, failure = {"a": np.float32(1.0), "b": object()}, ZeroDivisionError("x")
    assert processes.copied(tree) is tree
    value = object()  # not even JSON
    assert processes.agreed(lambda: value) is value
    with pytest.raises(ZeroDivisionError) as raised:
        processes.agreed(lambda: _raise(failure))
    assert raised.value is failure
    assert processes.anywhere(True) is True
    assert processes.anywhere(False) is False
    processes.refuse_differences({"not JSON": object()})


# ----------------------------------------------------------------------------------------------- devices and encoding


def test_the_devices_of_a_process_are_neighbours_and_hold_its_own_rows(two):
    for process, found in enumerate(two[0]):
        assert found["mesh"] == [0, 0, 1, 1]
        assert found["shape"] == [8, 3]
        starts = [4 * process, 4 * process + 2]
        assert found["rows"] == {
            str(i): [[3 * i, 3 * i + 1, 3 * i + 2], [3 * i + 3, 3 * i + 4, 3 * i + 5]] for i in starts
        }
        assert found["everywhere"] == [np.arange(24).reshape(8, 3).tolist()] * 2


def test_every_process_must_have_as_many_devices(two):
    (first, second), _ = two
    assert first["uneven"] == second["uneven"]
    sentence = "config.devices is {}, which gives the 2 processes {} devices each; expected as many for each"
    assert first["uneven"] == {
        "1": sentence.format(1, "0 to 1"),
        "3": sentence.format(3, "1 to 2"),
        "4": None,
        "5": "config.devices is 5, expected 0 (all) to 4, the devices found here",
    }


@pytest.mark.parametrize("prompted", ["plain", "prompted"])
@pytest.mark.parametrize("count", COUNTS)
def test_each_process_loads_its_own_rows_and_at_most_one_to_fill_up(two, count, prompted):
    loaded = [Counter(found["loaded"][f"{count} {prompted}"]) for found in two[0]]
    assert {*loaded[0], *loaded[1]} == {*ORDER[:count].tolist()}
    for process, items in enumerate(loaded):
        own = [int(ORDER[i]) for i in range(count) if i % BATCH // (BATCH // 2) == process]
        last = int(ORDER[count - 1])
        # Where the last batch ends before this process's rows, they are its last item.
        filling = [last] if 0 < count % BATCH <= process * (BATCH // 2) else []
        assert items == Counter(own + filling)


@pytest.fixture(scope="module")
def one(tiny_clip) -> dict[str, np.ndarray]:
    """The features as a single process makes them."""
    return encoded(str(tiny_clip))[0]


@pytest.mark.parametrize("kind", ["images", "texts"])
@pytest.mark.parametrize("prompted", ["plain", "prompted"])
@pytest.mark.parametrize("count", COUNTS)
def test_features_are_those_of_one_process_in_all(two, one, kind, count, prompted):
    name = f"{kind} {count} {prompted}"
    for process in range(2):
        with np.load(two[1] / f"features{process}.npz") as features:
            assert features[name].shape == (count, 16)
            np.testing.assert_allclose(features[name], one[name], rtol=0, atol=1e-6)
    assert count == 1 or len(np.unique(one[name].round(4), axis=0)) == count


# ----------------------------------------------------------------------------------------------------- the command line


@pytest.fixture(scope="module")
def command(small_settings, tmp_path_factory) -> list[str]:
    """A small run on the command line, but for its --workdir."""
    return command_line(tmp_path_factory.mktemp("config"), small_settings)


def refusals(folder: str, cases: dict[str, list[list[str]]]) -> None:
    """One command line after the other in this process's own folder; their statuses and sentences as a file there."""
    processes.start()
    process, found = jax.process_index(), {}
    os.chdir(Path(folder, str(process)))
    for name, commands in cases.items():
        with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()) as out:
            status = main(["lpi_jax.main", *commands[process]])
        found[name] = [status, out.getvalue(), said.getvalue()]
    Path("refusals.json").write_text(json.dumps(found), encoding="utf-8")
    print(found[name][2], end="", file=sys.stderr)
    sys.exit(found[name][0])


@pytest.fixture(scope="module")
def refused(tiny_clip, command, tmp_path_factory) -> tuple[list[Ended], list[dict[str, Any]], list[set[str]]]:
    """How two processes ended, what each of their commands said, and which files their folders then held anew."""
    folder = tmp_path_factory.mktemp("refused")
    config, _ = weights.load(tiny_clip)
    for process in ("0", "1"):
        own = folder / process
        shutil.copytree(tiny_clip, own / "clip")
        shutil.copytree(tiny_clip, own / "retrained")
        weights.save(own / "retrained", config, init_params(config, jax.random.key(int(process))))
        for split in ("train", "val"):
            Image.new("RGB", (8, 8)).save(own / f"{split}.png")
        for name, caption in (("stream", "black"), ("rewritten", f"black {process}")):
            said = {"captions": [f"{caption} {i}" for i in range(4)], "task": "dark"}
            examples = [{"image": f"{split}.png", "split": split, **said} for split in ("train", "val")]
            (own / f"{name}.jsonl").write_text("\n".join(map(json.dumps, examples)))
    (folder / "0" / "thesis").mkdir()
    (folder / "0" / "thesis" / "chapter1.tex").write_text("precious")
    ownership.claim(folder / "0" / "of others", configs.intended(), {"stream": "5" * 64, "backbone": "b" * 64})

    more = {"backbone": "clip", "data.name": "jsonl", "data.path": "stream.jsonl", "train.batch": 4}
    usual = [*command[2:], *flags(more), "--workdir=run"]
    cases = {
        "foreign": [[*usual, "--workdir=thesis"]] * 2,
        "of others": [[*usual, "--workdir=of others"]] * 2,
        "configuration": [usual, [*usual, "--config.seed=1"]],
        "reuse": [usual, [*(flag for flag in usual if ".train." not in flag), "--config.reuse=nosuch"]],
        "stream": [[*usual, "--config.data.path=rewritten.jsonl"]] * 2,
        "backbone": [[*usual, "--config.backbone=retrained"]] * 2,
        "devices": [[*usual, "--config.devices=3"]] * 2,
        "batch": [[*usual, "--config.train.batch=6"]] * 2,
    }
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
    with Together(folder, [calling(refusals, folder, cases)] * 2, devices=2) as together:
        ended = together.ended()
    found = [json.loads((folder / str(process) / "refusals.json").read_text()) for process in range(2)]
    after = {path.relative_to(folder).as_posix() for path in folder.rglob("*")} - names
    return ended, found, after


DIFFERENT = "process 1 has another {} than process 0; expected all processes to run the same command on the same files"


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("foreign", "--workdir is thesis, which holds other files; expected a new or empty folder, or a run's"),
        ("configuration", DIFFERENT.format("configuration")),
        ("reuse", DIFFERENT.format("configuration")),
        ("stream", DIFFERENT.format("stream")),
        ("backbone", DIFFERENT.format("backbone")),
        (
            "devices",
            "config.devices is 3, which gives the 2 processes 1 to 2 devices each; expected as many for each",
        ),
        (
            "batch",
            "config.train.batch is 6, expected a multiple of the 4 devices it is split over; use"
            " --config.train.batch=4",
        ),
    ],
)
def test_what_cannot_work_is_the_same_sentence_in_all_processes(refused, name, sentence):
    assert [found[name] for found in refused[1]] == [[2, "", f"error: {sentence}\n"]] * 2


def test_the_directory_of_another_run_in_the_first_ends_all(refused):
    (first, second) = [found["of others"] for found in refused[1]]
    assert first == second
    status, out, said = first
    assert (status, out, said.count("\n")) == (2, "", 1)
    assert said.startswith("error: of others holds another run: ")
    assert "; config.train.epochs is 10 there and" in said


def test_processes_that_refused_leave_with_that_status_and_nothing_written(refused):
    ended, found, after = refused
    assert [process.status for process in ended] == [2, 2]
    for process, own in zip(ended, found, strict=True):
        assert process.err == own["batch"][2]
    assert after == {"0.out", "0.err", "1.out", "1.err", "0/refusals.json", "1/refusals.json"}


def in_its_own_folder(folder: str, *arguments: str) -> None:
    """The command line in a folder of each process's own; one that has failed waits for the others a second at most."""
    processes._GRACE = 1.0
    os.chdir(Path(folder, os.environ["JAX_PROCESS_ID"]))
    sys.exit(main(["lpi_jax.main", *arguments]))


def test_a_process_that_fails_alone_says_so_and_the_others_end_too(command, tmp_path):
    for process in ("0", "1"):
        (tmp_path / process).mkdir()
    said = {"captions": ["a dark picture", "black", "night", "coal"], "task": "dark"}
    examples = [{"image": f"{split}.png", "split": split, **said} for split in ("train", "val")]
    for name in ("train", "val"):
        Image.new("RGB", (8, 8)).save(tmp_path / "0" / f"{name}.png")
    (tmp_path / "0" / "dark.jsonl").write_text("\n".join(map(json.dumps, examples)))
    more = {"data.name": "jsonl", "data.path": "dark.jsonl", "train.batch": 4}
    arguments = [*command[2:], *flags(more), "--workdir=run"]
    with Together(tmp_path, [calling(in_its_own_folder, tmp_path, *arguments)] * 2) as together:
        waiting, failed = together.ended()
    assert failed.status == 2
    assert failed.err == "error: dark.jsonl: there is no such file; expected a JSON Lines file, one line per image\n"
    assert waiting.status != 0
    assert not (tmp_path / "0" / "run").exists()


def asked_to_end_at_once() -> None:
    """The second process gets SIGTERM before it has anything to save."""
    processes._GRACE = 1.0
    processes.start()
    if os.environ["JAX_PROCESS_ID"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1.0)


def test_sigterm_ends_a_process_that_does_not_learn_yet(tmp_path):
    with Together(tmp_path, [calling(asked_to_end_at_once)] * 2) as together:
        assert together.ended()[1].status == -signal.SIGTERM
