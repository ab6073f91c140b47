"""What the preparations of real streams share: framing pictures, groups that stay together, making a folder whole."""

import contextlib
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lpi_jax.errors import UserError

SIDE = 160  # pixels
DRAWN = 245  # a pixel below it in any channel is drawn, all others are paper


def drawn_part(pixels: np.ndarray) -> np.ndarray | None:
    """[H, W, 3] uint8 -> [h, w, 3] uint8: cut to what is drawn; None if that is nothing or tiny."""
    drawn = (pixels < DRAWN).any(axis=2)
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    if not len(rows) or max(np.ptp(rows), np.ptp(columns)) < 16:
        return None
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def frame(pixels: np.ndarray, side: int = SIDE) -> np.ndarray | None:
    """[H, W, 3] uint8 -> [S, S, 3] uint8, S <= side: cut to what is drawn, on a white square; None if blank."""
    pixels = drawn_part(pixels)
    if pixels is None:
        return None
    height, width = pixels.shape[:2]
    longest = max(height, width)
    margin = round(0.04 * longest)
    square = Image.new("RGB", (longest + 2 * margin,) * 2, "white")
    square.paste(Image.fromarray(pixels), (margin + (longest - width) // 2, margin + (longest - height) // 2))
    if square.width > side:
        square = square.resize((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
    return np.array(square)


def groups(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """The number of its group for each of `count` things; what `pairs` join, directly or in steps, shares its own."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    for i, j in pairs:
        low, high = sorted((root(i), root(j)))
        parent[high] = low
    return [root(i) for i in range(count)]


def name_hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def refuse_what_exists(out: Path) -> None:
    """Raises UserError unless `out` is new or an empty folder."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; give --out a folder that is new or empty")


@contextlib.contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """A temporary folder that becomes `out` at the end of the block, or nothing if the block fails."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        yield temporary
        temporary.chmod(0o755)
        temporary.replace(out)  # onto an empty folder at most: a full one stops it
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_lines(path: Path, lines: Sequence[dict]) -> str:
    """Writes JSON Lines; returns their SHA-256."""
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    path.write_text(text, encoding="utf-8")
    return hashlib.sha256(text.encode()).hexdigest()
