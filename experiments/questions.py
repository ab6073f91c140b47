"""Tables of instruction following: ModalPrompt beside the frozen LLaVA and every baseline, three seeds; not run yet.

Command:  python experiments/questions.py --out runs/questions --set 'backbone="LLAVA"'
          python experiments/questions.py --out runs/questions --rows ModalPrompt LoRA --seeds 0
          python experiments/questions.py --out runs/questions_dev --seeds 100 --set train.lr=0.01
Hardware: two CPU cores; minutes are in the table it prints

A seed decides the images, the questions and the order of the data. All rows see the same samples as often; LoRA's rank
is such that a task trains about as many numbers as one of ModalPrompt, its prompts and their prototype's network. An
interrupted sweep goes on where it stopped.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from absl import logging

from lpi_jax import report
from lpi_jax.run import continual

sys.path.insert(0, str(Path(__file__).parents[1]))
from configs import questions_modalprompt

SEEDS = (0, 1, 2)
LOW_RANK = {"method.rank": 4, "method.scale": 4.0}
ROWS: dict[str, dict[str, Any]] = {
    "ModalPrompt": {},
    "ModalPrompt, last task as drawn": {"method.freeze_last": True},
    "LoRA": {"method.name": "lora", **LOW_RANK},
    "O-LoRA": {"method.name": "o_lora", **LOW_RANK},
    "MoE-LoRA": {"method.name": "moe_lora", "method.experts": 4, "method.rank": 1, "method.scale": 1.0},
    "replay": {"method.name": "replay", "method.buffer": 200, "method.replayed": 4},
    "fine-tuning": {"method.name": "finetune"},
}


def main() -> None:
    """Runs what has not been run yet, then prints the table and writes the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=tuple(ROWS))
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=JSON", help="other keys, such as train.lr=0.01")
    args = parser.parse_args()
    logging.set_verbosity(logging.ERROR)
    changes = {key: json.loads(value) for key, value in (change.split("=", 1) for change in args.set)}
    runs = []
    for row in args.rows:
        for seed in args.seeds:
            config = questions_modalprompt.get_config()
            config.update_from_flattened_dict({"seed": seed, "data.seed": seed, **ROWS[row], **changes})
            plain = "".join(letter if letter.isalnum() else "_" for letter in row)
            runs.append(args.out / f"{plain}_{seed}")
            continual.run(config, runs[-1])
    table = report.table(runs)
    (args.out / "questions.md").write_text(table, encoding="utf-8")
    print(table)
    report.write(runs, args.out / "report")


if __name__ == "__main__":
    main()
