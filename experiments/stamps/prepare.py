"""Turns the stamps of Debian's Tux Paint into a stream of ten tasks that `lpi_jax.data.sources.jsonl` reads.

Command:  python experiments/stamps/prepare.py --out DIR
Needs:    apt-get install tuxpaint-stamps-default librsvg2-bin
Writes:   DIR/stream.jsonl    ten tasks: the package's folders, small ones joined (`TASKS`)
          DIR/images/*.png    cut to what is drawn, on a white square at most 160 pixels wide
          DIR/report.json     what was kept, what was dropped and why, equal captions, checksums

The same packages, Pillow and numpy give the same files. Nothing is chosen by looking at a model's results.
"""

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import PIL
from PIL import Image
from tqdm import tqdm

from lpi_jax.data.images import UNREADABLE, BadImage, read_image
from lpi_jax.data.transforms import clean_caption
from lpi_jax.errors import UserError

sys.path.insert(0, str(Path(__file__).parents[1]))
from streams import drawn_part, frame, groups, name_hash, refuse_what_exists, whole_folder, write_lines

ROOT = "/usr/share/tuxpaint/stamps"
PACKAGES = "apt-get install tuxpaint-stamps-default librsvg2-bin"
MAX_PIXELS = 50_000_000
# Folders by task; of two that hold a stamp the deeper one counts. Folders of fewer than forty stamps are joined to
# their neighbours; alphabets are two thirds of the folder symbols and look and read like nothing else in it.
TASKS = {
    "alphabets": ("symbols/alphabets",),
    "animals": ("animals",),
    "food": ("food",),
    "home and leisure": ("household", "hobbies", "sports"),
    "nature and space": ("plants", "naturalforces", "space"),
    "people and clothes": ("people", "clothes", "medical"),
    "seasons": ("seasonal",),
    "symbols": ("symbols",),
    "town": ("town",),
    "vehicles": ("vehicles", "military"),
}
VARIANT = re.compile(r"_(mirror|flip|mirror_?flip)$")  # the same stamp again, drawn the other way round
TRANSLATION = re.compile(r"[a-z]{2,3}(_[A-Z]{2})?(@\w+)?\.utf8=")
SVG_SIDE = 320  # pixels of the longer side that SVGs are drawn at
VAL_SHARE = 0.4  # of a task's stamps that stand alone: three tenths of all but alphabets
# How much two pictures' colours may differ (mean of 8 x 8 cells, 0..255), as they are or mirrored, and their
# proportions (logarithm). The numbers were chosen by looking at the pairs nearest to each border.
COPY = 1.0  # the same picture again, not mirrored: with the same caption one stays
LOOK_ALIKE = 15.0  # never on both sides of the train/val border
PROPORTIONS = 0.25


@dataclass(frozen=True)
class Stamp:
    """One stamp on its way into the stream."""

    key: str  # path below the root, without ending
    caption: str
    pixels: np.ndarray = field(repr=False, default=None)  # [S, S, 3] uint8
    colours: np.ndarray = field(repr=False, default=None)  # [8, 8, 3] float32
    proportions: float = 0.0  # logarithm of height / width of what is drawn

    @property
    def task(self) -> str | None:
        return task_of(self.key)


def task_of(key: str) -> str | None:
    """The task whose folder holds the stamp, the deepest one; None if none does."""
    holding = [(folder, task) for task, folders in TASKS.items() for folder in folders if key.startswith(folder + "/")]
    return max(holding, key=lambda found: len(found[0]))[1] if holding else None


def prepare(root: Path, out: Path, draw_svg: bool = True) -> dict:
    """Makes all of the folder `out`; returns the report."""
    if not root.is_dir():
        raise UserError(f"{root} is not there: {PACKAGES}")
    if draw_svg and shutil.which("rsvg-convert") is None:
        raise UserError(f"rsvg-convert, which draws SVGs, is not there: {PACKAGES} (or leave them out: --without-svg)")
    refuse_what_exists(out)
    dropped = Counter()
    stamps = pictured(root, described(root, dropped), dropped, draw_svg)
    if not stamps:
        raise UserError(f"{root} holds no usable stamp; reinstall tuxpaint-stamps-default")
    total = len(stamps)
    stamps = without_copies(stamps)
    dropped["copy of another stamp"] = total - len(stamps)
    val = val_keys(stamps, clusters(stamps))
    with whole_folder(out) as folder:
        report = write(folder, stamps, val)
        report["stamps"] = sum(dropped.values()) + len(stamps)
        report["drawn from SVG"] = sum(not (root / f"{stamp.key}.png").exists() for stamp in stamps)
        report["dropped"] = dict((+dropped).most_common())
        report["versions"] = {"pillow": PIL.__version__, "numpy": np.__version__}
        if draw_svg:
            report["versions"]["rsvg-convert"] = run_rsvg("--version").decode().split()[-1]
        (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def described(root: Path, dropped: Counter) -> list[Stamp]:
    """Every stamp with an English sentence, its picture not read yet; what is dropped is counted by reason."""
    pictures = {p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*") if p.suffix in (".png", ".svg")}
    texts = {p.relative_to(root).with_suffix("").as_posix() for p in root.rglob("*.txt")}
    stamps = []
    for key in sorted(pictures | texts):
        caption = sentence(root / f"{key}.txt")
        if VARIANT.search(key):
            dropped["mirrored or flipped variant"] += 1
        elif key not in pictures:
            dropped["no picture"] += 1
        elif task_of(key) is None:
            dropped["in a folder of no task"] += 1
        elif not caption:
            dropped["no English sentence"] += 1
        else:
            stamps.append(Stamp(key, caption))
    return stamps


def sentence(path: Path) -> str:
    """The first line of a stamp's text, which is English; "" if it is not there, or is a translation already."""
    try:
        with path.open("rb") as file:
            first = file.readline(10_000).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        return ""
    return "" if TRANSLATION.match(first) else " ".join(first.split())


def pictured(root: Path, stamps: Sequence[Stamp], dropped: Counter, draw_svg: bool) -> list[Stamp]:
    """The stamps with framed pictures and looks; unreadable, huge and blank ones are dropped and counted."""
    kept = []
    for stamp in tqdm(stamps, desc="pictures", unit="picture"):
        png = root / f"{stamp.key}.png"
        if not png.exists() and not draw_svg:
            dropped["SVG without PNG"] += 1
            continue
        try:
            image = read_image(png if png.exists() else drawn_svg(png.with_suffix(".svg")), MAX_PIXELS)
        except BadImage as error:
            dropped[error.kind] += 1
            continue
        drawn = drawn_part(np.asarray(image))
        if drawn is None:
            dropped["blank picture"] += 1
            continue
        colours, proportions = look_of(drawn)
        kept.append(replace(stamp, pixels=frame(drawn), colours=colours, proportions=proportions))
    return kept


def drawn_svg(path: Path) -> bytes:
    """An SVG drawn as PNG. It comes through standard input, so that it can name no other file; raises `BadImage`."""
    try:
        return run_rsvg(f"--width={SVG_SIDE}", f"--height={SVG_SIDE}", "--keep-aspect-ratio", svg=path.read_bytes())
    except (OSError, subprocess.SubprocessError) as error:
        raise BadImage(UNREADABLE, f"{path}: the SVG cannot be drawn") from error


def run_rsvg(*arguments: str, svg: bytes = b"") -> bytes:
    return subprocess.run(["rsvg-convert", *arguments], input=svg, capture_output=True, timeout=60, check=True).stdout


def look_of(drawn: np.ndarray) -> tuple[np.ndarray, float]:
    """What two look-alikes share: [h, w, 3] uint8 -> mean colours [8, 8, 3] float32, logarithm of h / w."""
    cells = Image.fromarray(drawn).resize((8, 8), Image.Resampling.BOX)
    return np.asarray(cells, np.float32), float(np.log(drawn.shape[0] / drawn.shape[1]))


def near_pairs(stamps: Sequence[Stamp], colour: float, mirrored: bool) -> list[tuple[int, int]]:
    """Pairs i < j of one proportion whose colours differ by at most `colour`, as they are or, if so asked, mirrored."""
    colours = np.stack([s.colours for s in stamps])
    proportions = np.array([s.proportions for s in stamps])
    pairs = []
    for i in range(len(stamps) - 1):
        differ = np.abs(colours[i + 1 :] - colours[i]).mean(axis=(1, 2, 3))
        if mirrored:
            differ = np.minimum(differ, np.abs(colours[i + 1 :] - colours[i, :, ::-1]).mean(axis=(1, 2, 3)))
        alike = (differ <= colour) & (np.abs(proportions[i + 1 :] - proportions[i]) <= PROPORTIONS)
        pairs.extend((i, int(j)) for j in np.flatnonzero(alike) + i + 1)
    return pairs


def without_copies(stamps: Sequence[Stamp]) -> list[Stamp]:
    """One stamp of each set of copies with one caption, the first."""
    gone = set()
    for i, j in near_pairs(stamps, COPY, mirrored=False):
        if i not in gone and clean_caption(stamps[i].caption) == clean_caption(stamps[j].caption):
            gone.add(j)
    return [stamp for i, stamp in enumerate(stamps) if i not in gone]


def clusters(stamps: Sequence[Stamp]) -> list[int]:
    """A cluster number per stamp. Look-alikes, mirrored or not, and stamps with the same caption share theirs."""
    first = {}
    pairs = near_pairs(stamps, LOOK_ALIKE, mirrored=True)
    pairs += [(first.setdefault(clean_caption(s.caption), i), i) for i, s in enumerate(stamps)]
    return groups(len(stamps), pairs)


def val_keys(stamps: Sequence[Stamp], cluster: Sequence[int]) -> set[str]:
    """The val stamps: of those that nothing looks or reads like, a share of each task, by the hash of their name."""
    size = Counter(cluster)
    alone = [s for s, number in zip(stamps, cluster, strict=True) if size[number] == 1]
    chosen = set()
    for task in TASKS:
        members = sorted((s.key for s in alone if s.task == task), key=name_hash)
        chosen.update(members[: round(VAL_SHARE * len(members))])
    return chosen


def write(folder: Path, stamps: Sequence[Stamp], val: set[str]) -> dict:
    """Writes images and stream.jsonl; returns their counts and checksums."""
    (folder / "images").mkdir()
    order = list(TASKS)
    lines, pictures = [], hashlib.sha256()
    for stamp in sorted(stamps, key=lambda s: (order.index(s.task), s.key)):
        name = f"images/{stamp.key.replace('/', '--')}.png"
        split = "val" if stamp.key in val else "train"
        task = stamp.task
        lines.append({"image": name, "captions": [stamp.caption], "task": task, "split": split, "description": task})
        Image.fromarray(stamp.pixels).save(folder / name)
        pictures.update(stamp.key.encode() + stamp.pixels.tobytes())
    captions = Counter(clean_caption(stamp.caption) for stamp in stamps)
    counts = {task: {"train": 0, "val": 0} for task in dict.fromkeys(line["task"] for line in lines)}
    for line in lines:
        counts[line["task"]][line["split"]] += 1
    return {
        "tasks": counts,
        "stream": {"train": len(lines) - len(val), "val": len(val), "captions": len(lines)},
        "equal captions": {
            "different captions": len(captions),
            "captions of several stamps": sum(n > 1 for n in captions.values()),
            "stamps that share theirs": sum(n for n in captions.values() if n > 1),
            "of them alphabets": sum(s.task == "alphabets" and captions[clean_caption(s.caption)] > 1 for s in stamps),
        },
        "sha256": {
            "pictures": pictures.hexdigest(),
            "stream.jsonl": write_lines(folder / "stream.jsonl", lines),
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Prepares the stream of stamps; see the head of this file.")
    parser.add_argument("--out", type=Path, required=True, help="folder to make")
    parser.add_argument("--root", type=Path, default=Path(ROOT), help=f"the package's folder (default: {ROOT})")
    parser.add_argument("--without-svg", action="store_true", help="leave stamps out that are there as SVG only")
    options = parser.parse_args(arguments)
    try:
        print(json.dumps(prepare(options.root, options.out, not options.without_svg), indent=2))
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:  # a full disk, a folder that may not be written to
        print(f"{options.out}: cannot be written ({error})", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
