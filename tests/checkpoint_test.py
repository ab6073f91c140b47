"""Checkpoints: what comes back is what was saved, bit for bit, or one sentence says that it is damaged."""

import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from lpi_jax.checkpoint import Checkpoints
from lpi_jax.checkpoint_folder import HASHES
from lpi_jax.errors import UserError
from lpi_jax.train import TrainState

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
    """(kept=0) -> the checkpoints in tmp_path, opened anew for saving."""

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
        memory, meta = checkpoints.load_task(count, like(arrays(count)))
        chex.assert_trees_all_equal(memory, arrays(count, seed=count))
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(memory))
        assert meta == {**META, "cut": count}


def test_a_memory_without_trained_numbers_comes_back(opened):
    memory = {"trained": {}, "centres": np.ones((1, 2), np.float32)}
    opened().save_task(1, memory, META)
    found, _ = opened().load_task(1, like(memory))
    chex.assert_trees_all_equal(found, memory)


def test_a_train_state_comes_back_bit_for_bit_as_host_arrays(opened):
    opened().save_inside(2, 7, state())
    checkpoints = opened()
    assert checkpoints.steps_inside(2) == 7
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
    assert checkpoints.steps_inside(1) == 0
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
    memory, meta = opened().load_task(1, like(arrays(1)))
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
                checkpoints.load_task(checkpoints.finished_tasks(), like(arrays(2)))
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


def test_arrays_of_other_shapes_are_refused(opened):
    opened().save_task(1, arrays(1), META)
    wider = {**arrays(1), "centres": np.zeros((1, 6, 16), np.float32)}
    with pytest.raises(UserError, match="other shapes"):
        opened().load_task(1, like(wider))
