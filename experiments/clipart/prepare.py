"""Turns Debian's public-domain clip-art into a stream of twelve tasks that `lpi_jax.data.sources.jsonl` reads.

    apt-get install openclipart-png openclipart-svg
    python experiments/clipart/prepare.py --out DIR

DIR/stream.jsonl       twelve tasks: the twelve largest of `CANDIDATES`
DIR/kinds.jsonl        the same drawings with what their folders say ("birds, animals") in place of captions
DIR/background.jsonl   for pretraining: all other folders and a fixed half of the tasks' training drawings, so no val
                       drawing and no look-alike of one
DIR/images/*.png       cut to what is drawn, on a white square at most 160 pixels wide
DIR/report.json        what was kept, what was dropped and why, checksums

The same packages, Pillow and numpy give the same files. Nothing is chosen by looking at a model's results.
"""

import argparse
import hashlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import PIL
from clipart_words import MAX_XML_BYTES, Corpus, UnsafeXML, captions_of, family, read_metadata, word_count
from PIL import Image
from tqdm import tqdm

from lpi_jax.data.images import BadImage, read_image
from lpi_jax.data.transforms import clean_caption
from lpi_jax.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1]))
from streams import frame, groups, name_hash, refuse_what_exists, whole_folder, write_lines

ROOT = "/usr/share/openclipart"
MAX_PIXELS = 50_000_000
TASKS = 12
# Top folders that show things. Left out: shapes, special, decorations, buttons, logos (ornaments); unsorted.
# Flags are half of the folder signs_and_symbols and look and read like nothing else in it: a task of their own.
CANDIDATES = (
    "animals",
    "buildings",
    "computer",
    "containers",
    "education",
    "electronics",
    "flags",
    "food",
    "geography",
    "office",
    "people",
    "plants",
    "recreation",
    "science",
    "signs_and_symbols",
    "tools",
    "transportation",
)
FLAGS = "signs_and_symbols/flags/"
# Icon themes, card decks and the like: hundreds of variations of one drawing without captions of their own.
SET_FOLDERS = re.compile(r"(^|/)(icons|[a-z]+-theme|cards|gradients|patterns|stars|jigsaw|led)/")
SET_TITLES = re.compile(r"icon collection|svg theme|icon-?theme|iconset|gold-theme|gramastar|gradient collection", re.I)
MIN_WORDS = 2  # different words that all captions of a drawing must hold together
VAL_SHARE, VAL_MIN, VAL_MAX = 0.22, 10, 50  # of a task's drawings
# Near-duplicates: how many of the difference hash's 256 bits, and how much of an 8 x 8 thumbnail's colour (mean,
# 0..255), may differ. The numbers were chosen by looking at the pairs nearest to each border.
COPY = (8, 1.0)  # the same drawing again: one stays
LOOK_ALIKE = (40, 25.0)  # never on both sides of the train/val border
SAME_WORDS = (70, 255.0)  # look-alikes too if titles are of one family, or share a word and the author


@dataclass(frozen=True)
class Drawing:
    """One drawing on its way into the stream."""

    key: str  # path below the root, without ending
    creator: str
    captions: tuple[str, ...]  # the first is the title
    pixels: np.ndarray = field(repr=False, default=None)  # [S, S, 3] uint8
    bits: np.ndarray = field(repr=False, default=None)  # [256] bool
    colours: np.ndarray = field(repr=False, default=None)  # [8, 8, 3] float32

    @property
    def folder(self) -> str:
        return "flags" if self.key.startswith(FLAGS) else self.key.split("/")[0]

    @property
    def kind(self) -> str:
        """What the folders say that it shows, from the deepest up: "cats, mammals, animals"."""
        folders = self.key.removeprefix("signs_and_symbols/" if self.folder == "flags" else "").split("/")[:-1]
        return ", ".join(name.replace("_", " ") for name in reversed(folders))


def prepare(root: Path, out: Path) -> dict:
    """Makes all of the folder `out`; returns the report."""
    if not (root / "svg").is_dir() or not (root / "png").is_dir():
        raise UserError(f"{root} has no folders svg and png: apt-get install openclipart-png openclipart-svg")
    refuse_what_exists(out)
    dropped = Counter()
    drawings = pictured(root, described(root, dropped), dropped)
    if not drawings:
        raise UserError(f"{root} holds no usable drawing; reinstall openclipart-png and openclipart-svg")
    total = len(drawings)
    drawings = without_copies(drawings)
    dropped["copy of another drawing"] = total - len(drawings)
    sizes = Counter(d.folder for d in drawings if d.folder in CANDIDATES)
    tasks = sorted(sorted(sizes, key=lambda name: (-sizes[name], name))[:TASKS])
    val = val_keys(drawings, clusters(drawings), tasks)
    with whole_folder(out) as folder:
        report = write(folder, drawings, tasks, val)
        report["drawings"] = sum(dropped.values()) + len(drawings)
        report["dropped"] = dict(dropped.most_common())
        report["versions"] = {"pillow": PIL.__version__, "numpy": np.__version__}
        (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def described(root: Path, dropped: Counter) -> list[Drawing]:
    """Every drawing with usable words, its picture not read yet; what is dropped is counted by reason."""
    records = {}
    for path in tqdm(sorted((root / "svg").rglob("*.svg")), desc="metadata", unit="file"):
        key = path.relative_to(root / "svg").with_suffix("").as_posix()
        try:
            if path.stat().st_size > MAX_XML_BYTES:
                raise UnsafeXML("too large")
            records[key] = read_metadata(path.read_bytes())
        except UnsafeXML as error:
            dropped[f"metadata: {error}"] += 1
    corpus = Corpus.of(tuple(records.values()))
    drawings = []
    for key, metadata in records.items():
        captions = captions_of(metadata, key.rpartition("/")[2], corpus)
        if SET_FOLDERS.search(key) or SET_TITLES.search(metadata.title):
            dropped["icon theme, card deck or other set"] += 1
        elif metadata.linked:
            dropped["shows a linked picture that is not there"] += 1
        elif not captions:
            dropped["no usable title"] += 1
        elif word_count(captions) < MIN_WORDS:
            dropped["too few words"] += 1
        else:
            drawings.append(Drawing(key, metadata.creator, captions))
    return drawings


def pictured(root: Path, drawings: Sequence[Drawing], dropped: Counter) -> list[Drawing]:
    """The drawings with framed pictures and looks; unreadable, huge and blank ones are dropped and counted."""

    def picture(drawing: Drawing) -> Drawing | str:
        try:
            pixels = frame(np.asarray(read_image(root / "png" / f"{drawing.key}.png", MAX_PIXELS)))
        except BadImage as error:
            return error.kind
        if pixels is None:
            return "blank picture"
        bits, colours = look_of(pixels)
        return replace(drawing, pixels=pixels, bits=bits, colours=colours)

    kept = []
    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for found in tqdm(pool.map(picture, drawings), total=len(drawings), desc="pictures", unit="picture"):
            if isinstance(found, str):
                dropped[found] += 1
            else:
                kept.append(found)
    return kept


def look_of(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What two look-alikes share: a 16 x 16 difference hash [256] bool and 8 x 8 mean colours [8, 8, 3] float32."""
    picture = Image.fromarray(pixels)
    grey = np.asarray(picture.convert("L").resize((17, 16), Image.Resampling.BOX), np.int16)
    colours = np.asarray(picture.resize((8, 8), Image.Resampling.BOX), np.float32)
    return (grey[:, 1:] > grey[:, :-1] + 2).ravel(), colours


def near_pairs(drawings: Sequence[Drawing], bits: int, colour: float) -> list[tuple[int, int]]:
    """Pairs i < j whose hashes differ in at most `bits` bits and whose colours by at most `colour` on average."""
    hashes = np.stack([d.bits for d in drawings]).astype(np.float32)
    colours = np.stack([d.colours.ravel() for d in drawings])
    ones = hashes.sum(axis=1)
    pairs = []
    for i in range(len(drawings) - 1):
        differ = ones[i] + ones[i + 1 :] - 2 * hashes[i + 1 :] @ hashes[i]
        near = np.flatnonzero(differ <= bits) + i + 1
        near = near[np.abs(colours[near] - colours[i]).mean(axis=1) <= colour]
        pairs.extend((i, int(j)) for j in near)
    return pairs


def without_copies(drawings: Sequence[Drawing]) -> list[Drawing]:
    """One drawing of each set of copies: of a candidate task rather than another folder, then of the deepest folder."""
    order = sorted(drawings, key=lambda d: (d.folder not in CANDIDATES, -d.key.count("/"), d.key))
    gone = set()
    for i, j in near_pairs(order, *COPY):
        if i not in gone:
            gone.add(j)
    return sorted((d for i, d in enumerate(order) if i not in gone), key=lambda d: d.key)


def clusters(drawings: Sequence[Drawing]) -> list[int]:
    """A cluster number per drawing. Look-alikes, and drawings of one family of titles by one author, share theirs."""

    def related(i: int, j: int) -> bool:
        if families[i] == families[j]:
            return True
        shared = set(families[i].split()) & set(families[j].split())
        return drawings[i].creator == drawings[j].creator and any(len(word) > 3 for word in shared)

    families = [family(d.captions[0]) for d in drawings]
    pairs = near_pairs(drawings, *LOOK_ALIKE)
    pairs += [(i, j) for i, j in near_pairs(drawings, *SAME_WORDS) if related(i, j)]
    first = {}
    pairs += [(first.setdefault((families[i], d.creator), i), i) for i, d in enumerate(drawings)]
    return groups(len(drawings), pairs)


def val_keys(drawings: Sequence[Drawing], cluster: Sequence[int], tasks: Sequence[str]) -> set[str]:
    """The val drawings: by the hash of their name, nobody's look-alike, no caption twice in the val of all tasks."""
    size = Counter(cluster)
    alone = {d.key for d, number in zip(drawings, cluster, strict=True) if size[number] == 1}
    chosen, captions = set(), set()
    for task in tasks:
        members = [d for d in drawings if d.folder == task]
        wanted = min(max(round(VAL_SHARE * len(members)), VAL_MIN), VAL_MAX)
        for drawing in sorted(members, key=lambda d: name_hash(d.key)):
            cleaned = {clean_caption(caption) for caption in drawing.captions}
            if wanted and drawing.key in alone and captions.isdisjoint(cleaned):
                captions.update(cleaned)
                chosen.add(drawing.key)
                wanted -= 1
    return chosen


def in_background_half(key: str) -> bool:
    """Whether a training drawing may be pretrained on: fixed by its file's name alone."""
    return int(name_hash("background " + key.rpartition("/")[2])[:8], 16) % 2 == 0


def write(folder: Path, drawings: Sequence[Drawing], tasks: Sequence[str], val: set[str]) -> dict:
    """Writes images, stream.jsonl, kinds.jsonl and background.jsonl; returns their counts and checksums."""
    (folder / "images").mkdir()
    stream, kinds, background = [], [], []
    counts = {task.replace("_", " "): {"train": 0, "val": 0} for task in tasks}
    pictures = hashlib.sha256()
    for drawing in tqdm(sorted(drawings, key=lambda d: (d.folder, d.key)), desc="writing", unit="picture"):
        split = "val" if drawing.key in val else "train"
        name = f"images/{drawing.key.replace('/', '--')}.png"
        task = drawing.folder.replace("_", " ")
        line = {"image": name, "captions": drawing.captions, "task": task, "split": split, "description": task}
        if task in counts:
            stream.append(line)
            kinds.append({**line, "captions": (drawing.kind,)})
            counts[task][split] += 1
        if task not in counts or (split == "train" and in_background_half(drawing.key)):
            background.append(line)
        Image.fromarray(drawing.pixels).save(folder / name)
        pictures.update(drawing.key.encode() + drawing.pixels.tobytes())
    checksums = {"pictures": pictures.hexdigest()}
    for name, lines in (("stream.jsonl", stream), ("kinds.jsonl", kinds), ("background.jsonl", background)):
        checksums[name] = write_lines(folder / name, lines)
    return {
        "tasks": counts,
        "stream": {
            "train": len(stream) - len(val),
            "val": len(val),
            "captions": sum(len(line["captions"]) for line in stream),
        },
        "kinds": len({line["captions"] for line in kinds}),
        "background": {
            "drawings": len(background),
            "of the tasks' training drawings": sum(line["task"] in counts for line in background),
            "captions": sum(len(line["captions"]) for line in background),
        },
        "sha256": checksums,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prepares the clip-art stream; see the head of this file.")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--root", type=Path, default=Path(ROOT), help=f"the packages' folder (default: {ROOT})")
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(prepare(options.root, options.out), indent=2))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written to
        print(f"{options.out}: cannot be written ({error})", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
