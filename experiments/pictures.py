"""Questions about real pictures: six tasks made of the titles and folders of clip-art and of Tux Paint's stamps.

Command:  python experiments/pictures.py --clipart runs/clipart --stamps runs/stamps --out runs/pictures.jsonl
Needs:    what experiments/clipart/prepare.py and experiments/stamps/prepare.py wrote
Writes:   a JSON Lines file for `data.name=instructions` (`configs/pictures_modalprompt.py`); images stay where they are

Of each collection three tasks: what a picture's title or sentence is, which of the folders it is in, and the same with
a choice of four and a letter for an answer. A picture is in the same split in all of them, that of its collection.
Wrong choices and their order follow from the picture's name alone.
"""

import argparse
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from lpi_jax.errors import UserError
from lpi_jax.files import write_atomically

LETTERS = "ABCD"
COLLECTIONS = ("drawing", "stamp")


def main() -> None:
    """Writes the file and prints how many questions each task has."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clipart", type=Path, required=True)
    parser.add_argument("--stamps", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    records = []
    for name, folder in zip(COLLECTIONS, (args.clipart, args.stamps), strict=True):
        records += questions(name, pictures(folder), args.out.parent)
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(args.out, lambda file: file.write(text.encode()))
    for task in dict.fromkeys(record["task"] for record in records):
        splits = [record["split"] for record in records if record["task"] == task]
        print(f"{task}: {splits.count('train')} to learn from, {splits.count('val')} to measure on")


def pictures(folder: Path) -> list[dict[str, Any]]:
    """The rows of a prepared stream, their images as absolute paths. Raises UserError where there is none."""
    path = folder / "stream.jsonl"
    if not path.is_file():
        raise UserError(f"{path} is not there; run experiments/{folder.name}/prepare.py first")
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row | {"image": str((folder / row["image"]).resolve())} for row in rows]


def questions(collection: str, rows: Sequence[dict[str, Any]], beside: Path) -> list[dict[str, Any]]:
    """The records of a collection's three tasks; images relative to the folder `beside`, where the file will lie."""
    kinds = sorted({row["task"] for row in rows})
    records = []
    for task, ask in (("name", named), ("kind", of_kind), ("choice", chosen)):
        for row in rows:
            for question, answer, scoring in ask(row, kinds):
                records.append(
                    {
                        "image": os.path.relpath(row["image"], beside.resolve()),
                        "conversations": [
                            {"from": "human", "value": f"<image>\n{question}"},
                            {"from": "gpt", "value": answer},
                        ],
                        "task": f"{collection} {task}",
                        "split": row["split"],
                        "scoring": scoring,
                    }
                )
    return records


Asked = Iterator[tuple[str, str, str]]  # question, answer, how it is judged


def named(row: dict[str, Any], kinds: Sequence[str]) -> Asked:
    """What the picture's title or sentence is; the first caption."""
    yield "What is this?", row["captions"][0], "exact"


def of_kind(row: dict[str, Any], kinds: Sequence[str]) -> Asked:
    """Which of all folders it is in."""
    yield f"Which kind of thing is it: {', '.join(kinds)}?", row["task"], "exact"


def chosen(row: dict[str, Any], kinds: Sequence[str]) -> Asked:
    """Which of four folders it is in, as a letter."""

    def order(kind: str) -> bytes:
        return hashlib.sha256(f"{Path(row['image']).name} {kind}".encode()).digest()

    others = sorted((kind for kind in kinds if kind != row["task"]), key=order)[: len(LETTERS) - 1]
    shown = sorted([row["task"], *others], key=lambda kind: order(f"{kind} among the four"))
    listed = "\n".join(f"{letter}. {kind}" for letter, kind in zip(LETTERS, shown, strict=True))
    yield f"What is in the picture?\n{listed}\nAnswer with the letter.", LETTERS[shown.index(row["task"])], "choice"


if __name__ == "__main__":
    main()
