"""Chooses the learning rate of the tiny configurations, without looking at anything that is reported.

Command:  python experiments/choose_lr.py scenes  --out runs/choose_lr
          python experiments/choose_lr.py scenes  --out runs/choose_lr --preset intended --rates 0.05 0.2 0.5 1 2
          python experiments/choose_lr.py scenes  --out runs/choose_lr --method ewc --rates 0.001 0.003
          python experiments/choose_lr.py clipart --out runs/choose_lr --clipart runs/clipart
Hardware: two CPU cores; a minute or two a line for scenes, two and a half for clip-art

Scenes: the four development domains, which are not among the twelve, and a seed of their own. Clip-art: a stream made
of the reported stream's *training* drawings alone; held out are 40 % of those that the backbone has not seen either.
"""

import argparse
import importlib
import json
import shutil
import sys
from pathlib import Path

from absl import logging
from ml_collections import ConfigDict

from lpi_jax.run import continual

sys.path.insert(0, str(Path(__file__).parents[1]))
import development

from configs import clipart_lpi

RATES = (0.003, 0.01, 0.03, 0.1)
SEED = 100


def main() -> None:
    """Runs the stream once per learning rate and prints a line each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", choices=("scenes", "clipart"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clipart", type=Path, default=Path("runs/clipart"))
    parser.add_argument("--preset", choices=("anchored", "intended", "released"), default="anchored")
    parser.add_argument("--method", default="lpi", help="of scenes: the one of configs/scenes_METHOD.py")
    parser.add_argument("--rates", type=float, nargs="+", default=RATES)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=JSON", help="other keys, such as train.batch=32")
    args = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    print(
        "| lr | R@1 image to text | text to image | zero-shot | zero-shot | with the prior | routed right | seconds |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for rate in args.rates:
        config = configuration(args)
        config.train.lr = rate
        for change in args.set:
            key, value = change.split("=", 1)
            *path, last = key.split(".")
            node = config
            for part in path:
                node = node[part]
            node[last] = json.loads(value)
        workdir = args.out / f"{args.stream}_{args.method}_{args.preset}_{rate}"
        shutil.rmtree(workdir, ignore_errors=True)
        print(line(rate, continual.run(config, workdir)), flush=True)


def configuration(args: argparse.Namespace) -> ConfigDict:
    """Of the method, on the stream's development part."""
    if args.stream == "clipart":
        config = clipart_lpi.get_config(args.preset)
        development.clipart(config, args.clipart)
    else:
        file = importlib.import_module(f"configs.scenes_{args.method}")
        config = file.get_config(args.preset) if args.method == "lpi" else file.get_config()
        development.scenes(config, SEED)
    config.seed = SEED
    return config


def line(rate: float, found: dict) -> str:
    """One row: final averages over the union gallery."""
    cells = [f"{rate:g}"]
    at_one = [found["metrics"][f"{direction}/R@1"] for direction in ("image_to_text", "text_to_image")]
    cells += [f"{metric['final_average']:.1f}" for metric in (*at_one, *(metric["frozen"] for metric in at_one))]
    prior = [metric["controls"].get("frozen_prior", metric["frozen"])["final_average"] for metric in at_one]
    cells.append(" / ".join(f"{value:.1f}" for value in prior))
    routed = found["routing"]
    cells.append(" / ".join(f"{side['final_average']:.1f}" for side in routed.values()) or "—")
    cells.append(f"{sum(sum(task.values()) for task in found['seconds']):.0f}")
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
