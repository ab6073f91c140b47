"""What each part of the preset `anchored` contributes: one changed at a time, paired by seed.

Command:  python experiments/ablation.py scenes --out runs/ablation
          python experiments/ablation.py clipart --out runs/ablation           (stamps likewise)
          python experiments/ablation.py scenes --out runs/ablation --only "rank 1" "no prior"
Hardware: two CPU cores; minutes are in the table it prints

Scenes are the four development domains (with --all the twelve), with seeds of their own; clip-art is the six largest
folders' training drawings, split once more (with --all the reported stream); stamps are as prepared. A row whose
training is the same measures the prompts of the first row once more. Differences are final averages of R@1 and MRR
minus those of the whole, mean and sample deviation over the seeds. An interrupted sweep goes on where it stopped.
"""

import argparse
import importlib
import statistics
import sys
from pathlib import Path
from typing import Any

from absl import logging

from lpi_jax.run import continual

sys.path.insert(0, str(Path(__file__).parents[1]))
import development

SEEDS = (100, 101, 102)
WHOLE = "the whole"
# Name -> (what is changed, whether it trains again).
CHANGES: dict[str, tuple[dict[str, Any], bool]] = {
    WHOLE: ({}, True),
    "no prior": ({"eval.score": "matched"}, False),
    "prompted features of all": ({"eval.score": "prompted+prior"}, False),
    "plain features, too": ({"eval.score": "prompted+plain+prior"}, False),
    "tasks told by joint features": ({"routing.features": "joint"}, False),
    "router: k-means, L1": ({"routing.rule": "kmeans_l1", "routing.features": "joint"}, False),
    "router: nearest neighbours": ({"routing.rule": "knn", "routing.features": "joint"}, False),
    "no 'none of these'": ({"routing.none": 1.0}, False),
    "gates begin at 1": ({"method.gate": 1.0}, True),
    "prompts as tokens (add)": ({"method.injection": "add", "train.held_out": 0.0}, True),
    "layer factor not shared": ({"method.shared": False}, True),
    "depth 1": ({"method.depth": 1}, True),
    "rank 1": ({"method.rank": 1}, True),
    "rank 8": ({"method.rank": 8}, True),
    "alignment, cosine": ({"method.alignment_weight": 0.1}, True),
    "alignment, projected": ({"method.alignment": "projected", "method.alignment_weight": 0.1}, True),
    "task loss, intended": ({"method.task_weight": 0.1}, True),
    "task loss, current": ({"method.task": "current", "method.task_weight": 0.1}, True),
    "interaction, residual": ({"method.interaction": True, "method.interaction_form": "residual"}, True),
    "nothing held out": ({"train.held_out": 0.0}, True),
}
METRICS = tuple(f"{way}/{name}" for name in ("R@1", "MRR") for way in ("image_to_text", "text_to_image"))


def main() -> None:
    """Runs what has not been run yet and prints a row for each change."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", choices=("scenes", "clipart", "stamps"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--all", action="store_true", help="not the development part of scenes or clip-art, but all")
    parser.add_argument("--clipart", type=Path, default=Path("runs/clipart"))
    parser.add_argument("--only", nargs="+", choices=tuple(CHANGES), default=tuple(CHANGES))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    args = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    print("| changed | I→T R@1 | T→I R@1 | I→T MRR | T→I MRR | min |\n| --- | --- | --- | --- | --- | --- |")
    whole = [run(args, WHOLE, seed) for seed in args.seeds]
    print(f"| {WHOLE} | " + " | ".join(spread([final(one, name) for one in whole]) for name in METRICS), end="")
    print(f" | {minutes(whole)} |", flush=True)
    for name, control in (("frozen", frozen), ("frozen, with the same prior", frozen_with_prior)):
        cells = [spread([control(one, metric) for one in whole]) for metric in METRICS]
        print(f"| {name} | {' | '.join(cells)} | |", flush=True)
    for name in args.only:
        if name != WHOLE:
            changed = [run(args, name, seed) for seed in args.seeds]
            pairs = [list(zip(changed, whole, strict=True))] * len(METRICS)
            cells = [
                spread([final(one, metric) - final(base, metric) for one, base in each], signed=True)
                for metric, each in zip(METRICS, pairs, strict=True)
            ]
            print(f"| {name} | {' | '.join(cells)} | {minutes(changed)} |", flush=True)


def run(args: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """The results of one change with one seed."""
    config = importlib.import_module(f"configs.{args.stream}_lpi").get_config("anchored")
    config.seed = config.data.seed = seed
    if args.stream == "scenes" and not args.all:
        development.scenes(config, seed)
    if args.stream == "clipart" and not args.all:
        development.clipart(config, args.clipart, development.LARGEST)
    changes, trains = CHANGES[name]
    if not trains:
        config.reuse = str(folder(args, WHOLE, seed))
    config.update_from_flattened_dict(changes)
    return continual.run(config, folder(args, name, seed))


def folder(args: argparse.Namespace, name: str, seed: int) -> Path:
    """Where a run lies."""
    plain = "".join(letter if letter.isalnum() else "_" for letter in name)
    return args.out / f"{args.stream}{'_all' if args.all else ''}" / f"{plain}_{seed}"


def final(results: dict[str, Any], metric: str) -> float:
    """The final average of a metric."""
    return results["metrics"][metric]["final_average"]


def frozen(results: dict[str, Any], metric: str) -> float:
    """The final average of the frozen backbone on the same items."""
    return results["metrics"][metric]["frozen"]["final_average"]


def frozen_with_prior(results: dict[str, Any], metric: str) -> float:
    """The same with what the run's router knows."""
    return results["metrics"][metric]["controls"]["frozen_prior"]["final_average"]


def spread(values: list[float], signed: bool = False) -> str:
    """Mean and sample deviation."""
    mean = f"{statistics.mean(values):{'+' if signed else ''}.1f}"
    return mean if len(values) < 2 else f"{mean} ± {statistics.stdev(values):.1f}"


def minutes(runs: list[dict[str, Any]]) -> str:
    """Of one run, on the average."""
    return f"{statistics.mean(sum(sum(task.values()) for task in one['seconds']) for one in runs) / 60:.1f}"


if __name__ == "__main__":
    main()
