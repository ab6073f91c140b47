"""What training would refuse, asked before a run's directory is claimed."""

from collections.abc import Sequence

from lpi_jax.data.batches import steps_per_epoch
from lpi_jax.errors import UserError
from lpi_jax.methods.base import Method
from lpi_jax.train import optimizer


def steps_per_task(
    training: optimizer.Options, method: Method, names: Sequence[str], examples: Sequence[int], devices: int
) -> list[int]:
    """Training steps of each task; 0 for a method that trains nothing.

    Args:
      names: of the tasks. examples: how many training examples each has.

    Raises:
      UserError: a task cannot fill a batch, or optimiser or method do not fit.
    """
    if not method.options.trains:
        return [0] * len(names)
    optimizer.make_optimizer(training)
    method.check(names)
    check_batches(training, method, names, examples, devices)
    check_held_out(training, method)
    each = [epoch_of(training, method, number, count) for number, count in enumerate(examples)]
    return [training.epochs_in(steps) * steps for steps in each]


def epoch_of(training: optimizer.Options, method: Method, number: int, examples: int) -> int:
    """Steps of an epoch of task number `number`, which has so many training examples."""
    return steps_per_epoch(examples, own_rows(training, method, number))


def check_held_out(training: optimizer.Options, method: Method) -> None:
    """Raises UserError where images are held out for a decision that the method cannot follow."""
    if training.held_out and method.plain is None:
        raise UserError(
            f"config.train.held_out is {training.held_out}, but {method.name} as configured cannot leave a task to the"
            " frozen backbone; use --config.train.held_out=0"
        )


def own_rows(training: optimizer.Options, method: Method, number: int) -> int:
    """Rows of a batch that are task number `number`'s own; the others are replayed, from the second task on."""
    return training.batch_of(number) - (method.replayed if number else 0)


def check_batches(
    training: optimizer.Options, method: Method, names: Sequence[str], examples: Sequence[int], devices: int
) -> None:
    """Raises UserError, naming the smallest task, unless every task fills a batch, which is split over `devices`.

    The batch is not fitted to the data: it may decide how many negatives a pair has, and two runs would not be
    comparable.
    """
    if len(training.batches) not in (0, len(names)):
        raise UserError(
            f"config.train.batches holds {len(training.batches)} sizes, expected one for each of the {len(names)} tasks"
        )
    for number, name in enumerate(names):
        if own_rows(training, method, number) < 1:
            raise UserError(
                f"config.method.replayed is {method.replayed}, which leaves no row of a batch of"
                f" {training.batch_of(number)} to task {name!r}; expected less"
            )
    missing = [(count - own_rows(training, method, number), count, number) for number, count in enumerate(examples)]
    lack, count, number = min(missing)
    if lack < 0:
        key = "train.batches" if training.batches else "train.batch"
        fitting = count // devices * devices
        remedy = f"--config.{key}={fitting}" if fitting else f"at most --config.devices={count}"
        raise UserError(
            f"task {names[number]!r} has {count} training examples, too few for a batch: config.{key} is"
            f" {training.batch_of(number)}; use {remedy}"
        )
