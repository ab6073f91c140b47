"""Checkpoints: what comes back is what was saved, bit for bit, or one sentence says that it is damaged."""

import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lpi_jax.errors import UserError
from lpi_jax.train.step import TrainState
from lpi_jax.workdir import checkpoint_folder, description
from lpi_jax.workdir.checkpoint import Checkpoints
from lpi_jax.workdir.checkpoint_folder import HASHES
from tests.support.disks import full, snapshot

META = {"names": ["a", "b"], "stages": [{"recall": [12.5, 1 / 3]}], "seconds": [], "cut": 3}


def arrays(tasks, seed=0):
    """A memory as the loop saves it, large enough that orbax keeps the arrays in files of their own."""
    rng = np.random.default_rng(seed)
    return {
        "trained": {"factors": {"width": rng.normal(size=(tasks, 512, 4)).astype(np.float32)}},
        "centres": rng.normal(size=(tasks, 5, 16)).astype(np.float32),
    }


def state(step=7):
    trainable = {"width": jnp.arange(2048.0).reshape(512, 4) / 3}
    optimizer = optax.chain(optax.add_decayed_weights(0.1), optax.trace(0.9), optax.scale(-1.0))
    momentum = jax.tree.map(lambda leaf: leaf + 0.1, optimizer.init(trainable))
    return TrainState(trainable, momentum, jnp.asarray(step, jnp.int32))


def like(tree):
    return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), tree)


@pytest.fixture
def opened(tmp_path):
    """(kept=0) -> the checkpoints in tmp_path, a run's directory, opened anew for saving."""
    (tmp_path / "config.json").write_text("{}")

    def again(kept=0):
        checkpoints = Checkpoints(tmp_path, kept)
        checkpoints.prepare()
        return checkpoints

    return again


def test_a_new_directory_holds_nothing(opened):
    checkpoints = opened()
    assert checkpoints.finished_tasks() == 0
    assert checkpoints.steps_inside(0) == 0
    assert checkpoints.load_inside(0, like(state())) is None


def test_a_boundary_comes_back_bit_for_bit_after_later_ones_too(opened):
    for count in (1, 2, 3):
        opened().save_task(count, arrays(count, seed=count), {**META, "cut": count})
    checkpoints = opened()
    assert checkpoints.finished_tasks() == 3
    for count in (1, 2, 3):
        memory, meta = checkpoints.load_task(count)
        chex.assert_trees_all_equal(memory, arrays(count, seed=count))
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(memory))
        assert meta == {**META, "cut": count}


def test_a_memory_without_trained_numbers_comes_back(opened):
    memory = {"trained": {}, "centres": np.ones((1, 2), np.float32)}
    opened().save_task(1, memory, META)
    found, _ = opened().load_task(1)
    chex.assert_trees_all_equal(found, memory)


def test_a_train_state_comes_back_bit_for_bit_as_host_arrays(opened):
    opened().save_inside(2, 7, state(), 3 * 10**15 + 1)
    checkpoints = opened()
    assert checkpoints.steps_inside(2) == 7
    assert checkpoints.flops_inside(2) == 3 * 10**15 + 1
    found = checkpoints.load_inside(2, like(state(0)))
    chex.assert_trees_all_equal(found, state())
    chex.assert_trees_all_equal_dtypes(found, state())
    assert type(found) is TrainState
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))


def test_only_the_newest_state_inside_a_task_is_kept(opened, tmp_path):
    checkpoints = opened()
    for step in (2, 4, 6):
        checkpoints.save_inside(0, step, state(step))
    assert len(list((tmp_path / "checkpoints" / "inside").glob("step_*"))) == 1
    assert opened().steps_inside(0) == 6


def test_a_state_inside_another_task_does_not_count(opened):
    opened().save_inside(0, 7, state())
    checkpoints = opened()
    assert checkpoints.steps_inside(1) == checkpoints.flops_inside(1) == 0
    assert checkpoints.load_inside(1, like(state())) is None


def test_behind_a_boundary_the_state_inside_the_finished_task_does_not_count_and_the_next_one_replaces_it(
    opened, tmp_path
):
    checkpoints = opened()
    checkpoints.save_inside(0, 7, state())
    checkpoints.save_task(1, arrays(1), META)
    assert opened().steps_inside(1) == 0
    checkpoints.save_inside(1, 2, state(2))
    assert len(list((tmp_path / "checkpoints" / "inside").glob("step_*"))) == 1
    assert opened().steps_inside(1) == 2


def test_a_kill_while_an_old_state_is_deleted_does_no_harm(opened, tmp_path):
    checkpoints = opened()
    checkpoints.save_inside(0, 2, state(2))
    inside = tmp_path / "checkpoints" / "inside"
    shutil.copytree(inside / "step_000", tmp_path / "old")
    checkpoints.save_inside(0, 4, state(4))
    shutil.rmtree(tmp_path / "old" / "meta")
    shutil.copytree(tmp_path / "old", inside / "step_000")  # back again, half deleted
    checkpoints = opened()
    assert int(checkpoints.load_inside(0, like(state())).step) == 4
    checkpoints.save_inside(0, 6, state(6))
    assert [path.name for path in inside.glob("step_*")] == ["step_002"]


def test_numbers_above_999_are_found_again(opened, tmp_path):
    opened().save_inside(0, 1, state(1))
    inside = tmp_path / "checkpoints" / "inside"
    (inside / "step_000").rename(inside / "step_999")
    opened().save_inside(0, 2, state(2))
    opened().save_inside(0, 3, state(3))
    assert opened().steps_inside(0) == 3
    assert int(opened().load_inside(0, like(state())).step) == 3


def test_what_a_kill_left_half_written_is_not_taken_for_a_checkpoint(opened, tmp_path):
    opened().save_task(1, arrays(1), META)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "task_001", folder / "task_002.orbax-checkpoint-tmp")
    assert opened().finished_tasks() == 1


def test_a_checkpoint_killed_before_its_hashes_were_written_is_good(opened, tmp_path):
    opened().save_task(1, arrays(1), META)
    (tmp_path / "checkpoints" / "task_001" / HASHES).unlink()
    memory, meta = opened().load_task(1)
    chex.assert_trees_all_equal(memory, arrays(1))
    assert meta == META


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    path.write_bytes(b"")


def flipped(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def removed(path):
    path.unlink()


@pytest.mark.parametrize("damage", [halved, emptied, flipped, removed])
@pytest.mark.parametrize("kind", ["task", "inside"])
def test_whatever_file_is_damaged_one_sentence_says_so(opened, tmp_path, capfd, kind, damage):
    opened().save_task(1, arrays(1), META)
    opened().save_task(2, arrays(2), META)
    opened().save_inside(2, 7, state())
    folder = tmp_path / "checkpoints" / ("task_002" if kind == "task" else "inside/step_000")
    written = json.loads((folder / HASHES).read_text())
    assert len(written) > 5
    for name in (*written, HASHES):
        if (name, damage) == (HASHES, removed):
            continue  # shown above
        whole = (folder / name).read_bytes()
        damage(folder / name)
        checkpoints = opened()
        with pytest.raises(UserError) as error:
            if kind == "task":
                checkpoints.load_task(checkpoints.finished_tasks())
            else:
                checkpoints.load_inside(2, like(state()))
        message = str(error.value)
        assert message.startswith(f"checkpoint {folder} cannot be read (")
        assert message.endswith("); delete it to go on from the one before")
        assert "\n" not in message
        (folder / name).write_bytes(whole)
    assert "Traceback" not in capfd.readouterr().err


def test_without_the_damaged_boundary_the_one_before_is_the_newest(opened, tmp_path):
    opened().save_task(1, arrays(1), META)
    opened().save_task(2, arrays(2), META)
    shutil.rmtree(tmp_path / "checkpoints" / "task_002")
    assert opened().finished_tasks() == 1


def told_otherwise(monkeypatch, told):
    """Checkpoints that are saved say this of their arrays."""
    monkeypatch.setattr(description, "of", lambda tree: told)


def test_arrays_of_other_shapes_than_it_says_are_refused(opened, monkeypatch, tmp_path):
    told_otherwise(monkeypatch, {**description.of(arrays(1)), "centres": ["float32", [1, 6, 16]]})
    opened().save_task(1, arrays(1), META)
    folder = tmp_path / "checkpoints" / "task_001"
    with pytest.raises(UserError, match=f"^checkpoint {folder} holds arrays of other shapes than it says; delete it"):
        opened().load_task(1)


@pytest.mark.parametrize(
    ("told", "sentence"),
    [
        (None, "does not describe its arrays; expected one of this version: an earlier one wrote it"),
        ({"trained": 7}, "is damaged: it describes an array as 7"),
        ({"a": ["float32", [1 << 60]]}, "is damaged: it says to hold more than its files can"),
        ({"a": ["float32", [2]]}, "cannot be read ("),
    ],
    ids=["nothing", "no array", "too much", "other arrays"],
)
def test_what_a_checkpoint_says_wrongly_is_one_sentence(opened, monkeypatch, tmp_path, told, sentence):
    told_otherwise(monkeypatch, told)
    opened().save_task(1, arrays(1), META)
    with pytest.raises(UserError) as refused:
        opened().load_task(1)
    assert str(refused.value).startswith(f"checkpoint {tmp_path / 'checkpoints' / 'task_001'} {sentence}")
    assert "\n" not in str(refused.value)


# ---- readers ---------------------------------------------------------------------------------------------------------


def test_reading_changes_nothing_not_even_what_looks_left_behind(opened, tmp_path):
    checkpoints = opened()
    checkpoints.save_task(1, arrays(1), META)
    checkpoints.save_inside(1, 2, state(2))
    folder = tmp_path / "checkpoints"
    for name in ("task_002.part", "task_002.part.orbax-checkpoint-tmp", "task_000.deleted", "inside/step_001.part"):
        shutil.copytree(folder / "task_001", folder / name)  # as a run leaves them that is at work
    before = snapshot(tmp_path)
    reader = Checkpoints(tmp_path)
    assert reader.finished_tasks() == 1
    assert reader.steps_inside(1) == 2
    assert reader.load_task(1) is not None
    assert snapshot(tmp_path) == before
    opened()
    assert sorted(path.name for path in folder.iterdir()) == ["inside", "task_001"]
    assert [path.name for path in (folder / "inside").iterdir()] == ["step_000"]


def test_where_there_is_nothing_readers_make_nothing(tmp_path):
    reader = Checkpoints(tmp_path / "run")
    assert reader.finished_tasks() == 0
    assert reader.steps_inside(0) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_boundary_that_was_deleted_behind_a_newer_one_is_told_from_a_damaged_one(opened, monkeypatch):
    checkpoints = opened(kept=1)
    checkpoints.save_task(1, arrays(1), META)
    hashed = checkpoint_folder._sha256

    def meanwhile(path):
        monkeypatch.setattr(checkpoint_folder, "_sha256", hashed)
        checkpoints.save_task(2, arrays(2), META)
        return hashed(path)

    monkeypatch.setattr(checkpoint_folder, "_sha256", meanwhile)
    assert opened().load_task(1) is None
    assert opened().load_task(2) is not None


def test_who_reads_while_boundaries_come_and_go_always_finds_a_whole_one(opened, tmp_path):
    writer, reader, found, ended = opened(kept=1), Checkpoints(tmp_path), [], threading.Event()

    def read():
        while not ended.is_set():
            count = reader.finished_tasks()
            if count and (loaded := reader.load_task(count)):
                chex.assert_trees_all_equal(loaded[0], arrays(count, seed=count))
                found.append(count)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read)
        try:
            for count in range(1, 9):
                writer.save_task(count, arrays(count, seed=count), META)
        finally:
            ended.set()
        reading.result()
    assert len(set(found)) > 1


# ---- how many are kept -----------------------------------------------------------------------------------------------


def boundaries(folder):
    return sorted(path.name for path in (folder / "checkpoints").glob("task_*"))


def size(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_the_newest_boundaries_are_kept_whole_and_their_size_does_not_grow_with_the_square_of_the_tasks(
    opened, tmp_path
):
    checkpoints, sizes = opened(kept=2), []
    for count in range(1, 9):
        checkpoints.save_task(count, arrays(count), META)
        assert boundaries(tmp_path) == [f"task_{n:03d}" for n in (count - 1, count) if n]
        sizes.append(size(tmp_path))
    assert sizes[-1] < 2 * sizes[3]
    for count in (7, 8):
        chex.assert_trees_all_equal(checkpoints.load_task(count)[0], arrays(count))


def test_with_0_all_boundaries_are_kept(opened, tmp_path):
    for count in range(1, 5):
        opened(kept=0).save_task(count, arrays(count), META)
    assert boundaries(tmp_path) == ["task_001", "task_002", "task_003", "task_004"]


def test_a_deletion_killed_halfway_is_never_taken_for_a_checkpoint(opened, tmp_path, monkeypatch):
    opened(kept=1).save_task(1, arrays(1), META)

    def killed(path, **_):
        (path / "meta" / "metadata").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", killed)
        Checkpoints(tmp_path, kept=1).prepare()
        checkpoints = Checkpoints(tmp_path, kept=1)
        checkpoints.prepare()
        checkpoints.save_task(2, arrays(2), META)
    assert boundaries(tmp_path) == ["task_001.deleted", "task_002"]
    shutil.rmtree(tmp_path / "checkpoints" / "task_002")
    assert Checkpoints(tmp_path).finished_tasks() == 0
    opened()
    assert boundaries(tmp_path) == []


def test_a_damaged_boundary_says_whether_there_is_one_before(opened, tmp_path):
    opened(kept=2).save_task(1, arrays(1), META)
    opened(kept=2).save_task(2, arrays(2), META)
    for count, instead in ((2, "delete it to go on from the one before"), (1, "delete it to begin anew")):
        folder = tmp_path / "checkpoints" / f"task_{count:03d}"
        flipped(folder / "memory" / "manifest.ocdbt")
        with pytest.raises(UserError, match=rf"checkpoint {folder} cannot be read \(.*\); {instead}$"):
            opened().load_task(count)
        shutil.rmtree(folder)
        assert opened().finished_tasks() == count - 1


# ---- a directory that takes no more ----------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [0, 2_000], ids=["for nothing", "for no array"])
@pytest.mark.parametrize("kind", ["task", "inside"])
def test_where_the_disk_takes_no_more_one_sentence_says_so_and_the_checkpoint_before_stays(
    opened, tmp_path, capfd, kind, room
):
    checkpoints = opened()
    checkpoints.save_task(1, arrays(1), META)
    checkpoints.save_inside(1, 2, state(2))
    before = {path.name for path in tmp_path.rglob("*")}
    with full(room), pytest.raises(UserError) as error:
        if kind == "task":
            checkpoints.save_task(2, arrays(2), META)
        else:
            checkpoints.save_inside(1, 4, state(4))
    assert str(error.value) == (
        f"{tmp_path} cannot be written (File too large); the same command goes on from the last checkpoint"
    )
    assert {path.name for path in tmp_path.rglob("*")} == before
    assert capfd.readouterr() == ("", "")
    assert opened().finished_tasks() == 1
    assert opened().steps_inside(1) == 2


@pytest.mark.parametrize("when", ["before", "meanwhile"])
@pytest.mark.parametrize("replaced", [False, True], ids=["removed", "replaced"])
@pytest.mark.parametrize("kind", ["task", "inside"])
def test_a_directory_that_was_removed_is_noticed_and_not_made_anew(tmp_path, monkeypatch, kind, replaced, when):
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "config.json").write_text("{}")
    checkpoints = Checkpoints(directory)
    checkpoints.prepare()

    def remove():
        shutil.rmtree(directory)
        if replaced:
            directory.mkdir()

    if when == "before":
        remove()
    else:
        save = checkpoint_folder.ocp.Checkpointer.save
        monkeypatch.setattr(checkpoint_folder.ocp.Checkpointer, "save", lambda *a, **b: (remove(), save(*a, **b)))
    with pytest.raises(UserError) as error:
        if kind == "task":
            checkpoints.save_task(1, arrays(1), META)
        else:
            checkpoints.save_inside(0, 2, state(2))
    assert str(error.value) == (
        f"{directory} was removed or moved during the run; the same command goes on from what is left"
    )
    assert [path for path in tmp_path.rglob("*") if path != directory] == []
