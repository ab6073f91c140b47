"""What routing costs: milliseconds for a thousand items, and kilobytes of memory, by rule.

Command:  python benchmarks/routing.py
Hardware: two CPU cores, a minute

Items and tasks are random unit vectors around random means: the time does not depend on what they say. Widths are those
of the bundled backbone's features (128) and of what its vision tower's last block makes of an image (384), and the same
of a ViT-B/16 (512, 1536).
"""

import argparse
import statistics
import time

import numpy as np

from lpi_jax.methods import routing
from lpi_jax.methods.base import TaskContext

ITEMS = 1000


def main() -> None:
    """Prints a table, a row for each rule and width of features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, default=12)
    parser.add_argument("--items", type=int, default=450, help="training items a task and side")
    parser.add_argument("--rounds", type=int, default=9)
    args = parser.parse_args()
    print("| rule | width | ms to route 1,000 items | s to learn a task | kB once | kB a task |")
    print("| --- | --- | --- | --- | --- | --- |")
    for width in (128, 384, 512, 1536):
        for rule in routing.RULES:
            print(row(rule, width, args), flush=True)


def row(rule: str, width: int, args: argparse.Namespace) -> str:
    """One row: medians over the rounds, and sizes of one side's state."""
    rng = np.random.default_rng(0)
    options, memory, learning, sizes = routing.Options(rule=rule), {}, [], [0]
    for number in range(args.tasks):
        features = unit(rng.normal(size=width) + rng.normal(size=(args.items, width)))
        began = time.perf_counter()
        memory = routing.remembered(memory, {}, context(number, features), options)
        learning.append(time.perf_counter() - began)
        sizes.append(sum(part.nbytes for part in routing.state(memory, "image").values()))
    queries = {"image": unit(rng.normal(size=(ITEMS, width)))}
    spent = []
    for _ in range(args.rounds):
        began = time.perf_counter()
        routing.assign(memory, queries, {}, options)
        spent.append(time.perf_counter() - began)
    a_task = sizes[-1] - sizes[-2]
    once = sizes[-1] - args.tasks * a_task
    cells = (
        f"{1e3 * statistics.median(spent):.1f}",
        f"{statistics.median(learning):.2f}",
        f"{once / 1e3:.1f}",
        f"{a_task / 1e3:.1f}",
    )
    return f"| {rule} | {width} | {' | '.join(cells)} |"


def unit(rows: np.ndarray) -> np.ndarray:
    """[N, E] float32 rows of length 1."""
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def context(number: int, features: np.ndarray) -> TaskContext:
    """A task whose training items are these, of one side."""
    names = tuple(map(str, range(number + 1)))
    meaning = np.zeros(features.shape[1], np.float32)
    return TaskContext(
        number=number,
        names=names,
        meaning=meaning,
        examples=len(features),
        seed=0,
        features=lambda: {"image": features},
        batches=lambda count: iter(()),
        gradient=lambda *_: {},
    )


if __name__ == "__main__":
    main()
