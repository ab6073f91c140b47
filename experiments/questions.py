"""Tables of instruction following: ModalPrompt beside the frozen LLaVA and every baseline, three seeds.

Command:  python experiments/questions.py --out runs/questions
          python experiments/questions.py --out runs/questions --rows ModalPrompt LoRA --seeds 0
          python experiments/questions.py --out runs/questions_dev --rows ModalPrompt --seeds 100 --set train.lr=0.03
Hardware: two CPU cores; minutes are in the table it prints

A seed decides the images, the questions and the order of the data. All rows see the same samples as often; LoRA's rank
is such that a task trains about as many numbers as one of ModalPrompt, its prompts and their prototype's network. An
interrupted sweep goes on where it stopped.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import logging

from lpi_jax import report
from lpi_jax.run import continual

sys.path.insert(0, str(Path(__file__).parents[1]))
from configs import questions_modalprompt

SEEDS = (0, 1, 2)
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % quantiles, by the number of seeds
# Rates of the others: LoRA's was tried on seed 100, those of whole networks were not chosen on any samples.
LOW_RANK = {"method.rank": 4, "method.scale": 4.0, "train.lr": 0.003}
WHOLE = {"train.lr": 3e-4}
ROWS: dict[str, dict[str, Any]] = {
    "ModalPrompt": {},
    "ModalPrompt, three sets": {"method.sets": 3},
    "ModalPrompt, last task as drawn": {"method.freeze_last": True},
    "LoRA": {"method.name": "lora", **LOW_RANK},
    "O-LoRA": {"method.name": "o_lora", **LOW_RANK},
    "MoE-LoRA": {**LOW_RANK, "method.name": "moe_lora", "method.experts": 4, "method.rank": 1, "method.scale": 1.0},
    "replay": {**WHOLE, "method.name": "replay", "method.buffer": 200, "method.replayed": 4},
    "fine-tuning": {**WHOLE, "method.name": "finetune"},
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
    of: dict[str, list[Path]] = {}
    for row in args.rows:
        for seed in args.seeds:
            config = questions_modalprompt.get_config()
            config.update_from_flattened_dict({"seed": seed, "data.seed": seed, **ROWS[row], **changes})
            plain = "".join(letter if letter.isalnum() else "_" for letter in row)
            of.setdefault(row, []).append(args.out / f"{plain}_{seed}")
            continual.run(config, of[row][-1])
    told = "\n".join([comparison(args.rows, of), *(f"{row}\n\n{by_task(of[row])}" for row in args.rows)])
    (args.out / "questions.md").write_text(told, encoding="utf-8")
    print(told)
    report.write([run for runs in of.values() for run in runs], args.out / "report")


# ---- tables ----------------------------------------------------------------------------------------------------------


def comparison(rows: Sequence[str], of: Mapping[str, Sequence[Path]]) -> str:
    """A row for the frozen LLaVA and each method: mean and deviation over the seeds; of differences their interval."""
    lines = [
        f"| method | numbers a task | just learnt | accuracy | minus frozen | {rows[0]} minus it | forgetting "
        "| own task first / among | TFLOP | min |"
    ]
    lines.append("| --- " * 10 + "|")
    first = [results(run) for run in of[rows[0]]]
    frozen = [one["metrics"]["accuracy"]["frozen"]["final_average"] for one in first]
    guess = [one["metrics"]["accuracy"]["chance"]["final_average"] for one in first]
    best = [one["metrics"]["accuracy"]["final_average"] for one in first]
    lines.append(f"| frozen | 0 | | {spread(frozen)} | | {difference(best, frozen)} | 0 | | | |")
    lines.append(f"| best single answer to each task | 0 | | {spread(guess)} | | {difference(best, guess)} | | | | |")
    for row in rows:
        found = [results(run) for run in of[row]]
        accuracy = [one["metrics"]["accuracy"] for one in found]
        ends = [one["final_average"] for one in accuracy]
        learnt = [statistics.mean(row[task] for task, row in enumerate(one["matrix"])) for one in accuracy]
        routing = [one["routing"]["sample"] for one in found if one["routing"]]
        chosen = [one["final_average"] for one in routing]
        among = [statistics.mean(one["among"]) for one in routing if "among" in one]
        seconds = [sum(sum(task.values()) for task in one["seconds"]) / 60 for one in found]
        cells = [
            f"{found[0]['parameters']['per_task']:,}",
            spread(learnt),
            spread(ends),
            difference(ends, [one["frozen"]["final_average"] for one in accuracy]),
            "" if row == rows[0] else difference(best, ends),
            spread([one["forgetting"] for one in accuracy]),
            " / ".join(spread(part) for part in (chosen, among) if part),
            spread([sum(one["training_flops"]) / 1e12 for one in found]),
            spread(seconds),
        ]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def by_task(runs: Sequence[Path]) -> str:
    """A row for each task, means over the seeds: the frozen LLaVA, when just learnt, at the end, and the choice."""
    columns = ("frozen", "best single answer", "just learnt", "at the end", "own task first", "among the chosen")
    lines = [f"| task | {' | '.join(columns)} |", "| --- " * (1 + len(columns)) + "|"]
    found = [results(run) for run in runs]
    for number, name in enumerate(found[0]["tasks"]):
        accuracy = [one["metrics"]["accuracy"] for one in found]
        routing = [one["routing"].get("sample", {}) for one in found]
        numbers = [
            [one["frozen"]["matrix"][-1][number] for one in accuracy],
            [one["chance"]["matrix"][-1][number] for one in accuracy],
            [one["matrix"][number][number] for one in accuracy],
            [one["matrix"][-1][number] for one in accuracy],
            [one["matrix"][-1][number] for one in routing if one],
            [one["among"][number] for one in routing if "among" in one],
        ]
        lines.append(f"| {name} | {' | '.join(f'{statistics.mean(c):.1f}' if c else '' for c in numbers)} |")
    return "\n".join(lines) + "\n"


def results(run: Path) -> dict[str, Any]:
    """results.json of a run."""
    return json.loads((run / "results.json").read_text(encoding="utf-8"))


def spread(numbers: Sequence[float]) -> str:
    """Mean and sample standard deviation."""
    deviation = f" ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.1f}{deviation}" if numbers else ""


def difference(numbers: Sequence[float], others: Sequence[float]) -> str:
    """Mean difference on the same seeds, and its interval."""
    apart = [a - b for a, b in zip(numbers, others, strict=True)]
    return f"{statistics.mean(apart):+.1f} {interval(apart)}"


def interval(numbers: Sequence[float]) -> str:
    """[low, high]: 95 % of Student's t around the mean of a few seeds."""
    if len(numbers) not in STUDENT:
        return ""
    half = STUDENT[len(numbers)] * statistics.stdev(numbers) / len(numbers) ** 0.5
    return f"[{statistics.mean(numbers) - half:.1f}, {statistics.mean(numbers) + half:.1f}]"


if __name__ == "__main__":
    main()
