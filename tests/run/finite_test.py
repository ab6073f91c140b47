"""Numbers that are not finite: found one step later, told in one sentence, and never saved."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.run import continual
from lpi_jax.run.finite import Watch
from lpi_jax.train import step as train
from lpi_jax.workdir.checkpoint import Checkpoints

GOOD, BAD = {"loss": 1.0, "align": 0.25}, {"loss": float("nan"), "align": 0.25, "retrieval": float("inf")}


def test_a_loss_is_looked_at_one_step_later_or_now():
    watch = Watch(0.5)
    watch.look("birds", 1, GOOD, now=False)
    watch.look("birds", 2, BAD, now=False)
    told = (
        r"the loss is nan in task 'birds' after 2 steps \(align 0\.25, retrieval inf\); config\.train\.lr of 0\.5 may"
    )
    with pytest.raises(UserError, match=told):
        watch.look("birds", 3, GOOD, now=False)
    with pytest.raises(UserError, match="after 4 steps"):
        Watch(0.5).look("birds", 4, BAD, now=True)


def test_the_end_of_one_task_is_not_looked_at_in_the_next():
    watch = Watch(0.5)
    watch.look("birds", 9, BAD, now=False)
    watch.begin()
    watch.look("ships", 1, GOOD, now=True)


@pytest.mark.parametrize("ruined", ["loss", "trainable"])
def test_what_is_saved_is_from_before(ruined, make_config, monkeypatch, tmp_path):
    """The third step of six ruins the loss, or what is trained; states are saved behind the second and the fourth."""
    make = train.make_step

    def spoiling(*arguments):
        step, calls = make(*arguments), []

        class Spoilt:
            flops = 0

            def __call__(self, state, *rest):
                calls.append(1)
                state, terms = step.run(state, *rest)
                if len(calls) == 3 and ruined == "loss":
                    terms = {**terms, "loss": jnp.float32(np.nan)}
                if len(calls) == 4 and ruined == "trainable":
                    state = state._replace(trainable=jax.tree.map(lambda leaf: leaf * np.nan, state.trainable))
                return state, terms

        return step._replace(run=Spoilt())

    monkeypatch.setattr(train, "make_step", spoiling)
    config = make_config({"data.domains": ("fax",), "train.log_every": 100})
    told = {"loss": "the loss is nan in task 'fax' after 3 steps", "trainable": "step 4 of task 'fax' ended in numbers"}
    with pytest.raises(UserError, match=told[ruined]):
        continual.run(config, tmp_path / "run")
    assert Checkpoints(tmp_path / "run").steps_inside(0) == 2
    monkeypatch.setattr(train, "make_step", make)
    assert continual.run(config, tmp_path / "run")["tasks"] == ["fax"]
