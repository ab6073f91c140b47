"""Streams to choose and to compare on, none of whose images is reported."""

import hashlib
import json
from collections.abc import Collection
from pathlib import Path

from ml_collections import ConfigDict

from lpi_jax.data.scenes.source import DEVELOPMENT_DOMAINS
from lpi_jax.files import write_atomically

# The folders of clip-art with the most drawings.
LARGEST = ("animals", "flags", "food", "people", "recreation", "signs and symbols")


def scenes(config: ConfigDict, seed: int) -> None:
    """Sets the four development domains, which are not among the twelve, with images of their own."""
    config.data.domains = DEVELOPMENT_DOMAINS
    config.data.seed = seed


def clipart(config: ConfigDict, prepared: Path, folders: Collection[str] = ()) -> None:
    """Sets the reported stream's training drawings, split once more.

    Held out are 40 % of those that the backbone has not seen either: what is measured on is new to it, as it is in the
    report.

    Args:
      prepared: what experiments/clipart/prepare.py wrote; development*.jsonl is written into it.
      folders: those that are kept; none: all.
    """
    background = (prepared / "background.jsonl").read_text(encoding="utf-8").splitlines()
    pretrained_on = {json.loads(text)["image"] for text in background}
    lines = []
    for text in (prepared / "kinds.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(text)
        if row["split"] == "train" and (not folders or row["task"] in folders):
            new = row["image"] not in pretrained_on
            held_out = new and hashlib.sha256(row["image"].encode()).digest()[0] % 5 < 2
            lines.append(json.dumps(row | {"split": "val" if held_out else "train"}, ensure_ascii=False) + "\n")
    path = prepared / f"development{len(folders) or ''}.jsonl"
    write_atomically(path, lambda file: file.write("".join(lines).encode()))
    config.data.path = str(path)
