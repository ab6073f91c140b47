"""The reported table: three seeds of every method on both embedded streams.

Command:  python experiments/reported.py scenes  --out runs/reported
          python experiments/reported.py clipart --out runs/reported --clipart runs/clipart
Hardware: two CPU cores; minutes are in the table it prints

A seed decides the initial prompts, the order of the data and, for scenes, the images. The rows with the task known
measure the prompts of the `intended` runs once more. An interrupted sweep goes on where it stopped.
"""

import argparse
import sys
from pathlib import Path

from absl import logging

from lpi_jax import report
from lpi_jax.run import continual

sys.path.insert(0, str(Path(__file__).parents[1]))
from configs import clipart_lpi, scenes_lpi

SEEDS = (0, 1, 2)


def main() -> None:
    """Runs what has not been run yet, then prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", choices=("scenes", "clipart"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--clipart", type=Path, default=Path("runs/clipart"))
    args = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    runs = []
    for seed in SEEDS:
        folder = {name: args.out / f"{args.stream}_{name}_{seed}" for name in ("released", "intended", "oracle")}
        for name, workdir in folder.items():
            module = scenes_lpi if args.stream == "scenes" else clipart_lpi
            config = module.get_config("released" if name == "released" else "intended")
            config.seed = config.data.seed = seed
            if args.stream == "clipart":
                config.data.path = str(args.clipart / "stream.jsonl")
            if name == "oracle":
                config.task_id = "oracle"
                config.reuse = str(folder["intended"])
            continual.run(config, workdir)
            runs.append(workdir)
    table = report.table(runs)
    (args.out / f"{args.stream}.md").write_text(table, encoding="utf-8")
    print(table)


if __name__ == "__main__":
    main()
