"""The reported tables: three seeds of the preset `anchored` on every embedded or prepared stream, beside all controls.

Command:  python experiments/reported.py scenes  --out runs/reported
          python experiments/reported.py clipart --out runs/reported            (stamps likewise)
          python experiments/reported.py scenes  --out runs/reported --presets anchored intended released
Hardware: two CPU cores; minutes are in the table it prints

A seed decides the initial prompts, the order of the data, what is held out and, for scenes, the images. Other presets
are trained as they are and then measured once more with the preset `anchored`'s way of counting equal captions, so that
all stand in one table. An interrupted sweep goes on where it stopped.
"""

import argparse
import importlib
import sys
from pathlib import Path

from absl import logging

from lpi_jax import report
from lpi_jax.run import continual

sys.path.insert(0, str(Path(__file__).parents[1]))

SEEDS = (0, 1, 2)


def main() -> None:
    """Runs what has not been run yet, then prints the table and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stream", choices=("scenes", "clipart", "stamps"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--presets", nargs="+", choices=("anchored", "intended", "released"), default=["anchored"])
    args = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    runs = []
    for preset in args.presets:
        for seed in SEEDS:
            config = importlib.import_module(f"configs.{args.stream}_lpi").get_config(preset)
            config.seed = config.data.seed = seed
            workdir = args.out / f"{args.stream}_{preset}_{seed}"
            continual.run(config, workdir)
            if preset != "anchored":
                config.reuse, config.eval.equal_texts = str(workdir), "one"
                workdir = args.out / f"{args.stream}_{preset}_{seed}_one"
                continual.run(config, workdir)
            runs.append(workdir)
    table = report.table(runs)
    (args.out / f"{args.stream}.md").write_text(table, encoding="utf-8")
    print(table)
    report.write(runs, args.out / f"{args.stream}_report")


if __name__ == "__main__":
    main()
