"""Looks through a folder with what a run has learnt: python -m lpi_jax.search RUN --images FOLDER --text "a red flag"

Prints the images that are nearest to a text or to another image, best first, and draws a contact sheet of the first
ten. Every image is encoded as the run's evaluation encodes it (`lpi_jax.load`).
"""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from tqdm import tqdm

from lpi_jax import paths, terminal
from lpi_jax.data import images
from lpi_jax.data.contact_sheet import Section, Tile, contact_sheet, thumbnail
from lpi_jax.data.loader import ahead
from lpi_jax.errors import UserError
from lpi_jax.files import write_atomically
from lpi_jax.problems.retrieval.score import Scored, joined

if TYPE_CHECKING:
    from lpi_jax.problems.retrieval.retriever import Retriever

ENDINGS = (".avif", ".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
DRAWN = 10  # images on the contact sheet
_TOGETHER = 512  # images encoded at once: few wait in memory, many share a batch


class Found(NamedTuple):
    """The images of a folder.

    Attributes:
      files: those that could be read, N paths.
      items: the images as the model scores them.
      bad: how many could not, by kind.
      first: what is wrong with the first of them.
    """

    files: list[str]
    items: Scored
    bad: Mapping[str, int]
    first: str


def files_in(folder: Path, ours: Path) -> list[str]:
    """Paths of the images in a folder and in those below it, by name; hidden ones and the file `ours` are left out.

    Raises:
      UserError: there is no such folder, or no image in it.
    """
    if not folder.is_dir():
        raise UserError(f"--images is {folder}, expected a folder of images")
    found = []

    def told(error: OSError) -> None:
        print(f"{error.filename} is left out: it cannot be read ({error.strerror})", file=sys.stderr)

    for place, folders, names in os.walk(folder, onerror=told):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.join(place, name)
            for name in sorted(names)
            if name.lower().endswith(ENDINGS) and not name.startswith(".")
        ]
    own = os.path.realpath(ours)
    found = [file for file in found if os.path.realpath(file) != own]
    if not found:
        raise UserError(f"--images is {folder}, which holds no image; expected files that end in {', '.join(ENDINGS)}")
    return found


def encode(model: "Retriever", files: Sequence[str]) -> Found:
    """Encodes images, showing on stderr how far it is; those that cannot be read are counted and left out.

    Raises:
      UserError: not one of them can be read.
    """

    def read(file: str) -> np.ndarray | images.BadImage:
        try:
            return model.prepare(images.read_image(file))
        except images.BadImage as error:
            return error

    good: list[str] = []
    parts: list[Scored] = []
    bad: list[images.BadImage] = []
    # On a terminal only: in a file there is nobody to wait.
    with tqdm(total=len(files), desc="encoding", unit="image", disable=None) as bar:
        for start in range(0, len(files), _TOGETHER):
            waiting = []
            some = files[start : start + _TOGETHER]
            for file, image in zip(some, ahead(read, some), strict=True):
                if isinstance(image, images.BadImage):
                    bad.append(image)
                else:
                    good.append(file)
                    waiting.append(image)
                bar.update()
            parts.append(model.index_images(waiting))
    if not good:
        raise UserError(f"not one of {len(files)} images can be read; the first: {bad[0]}")
    return Found(good, joined(parts), Counter(one.kind for one in bad), str(bad[0]) if bad else "")


def ranked(model: "Retriever", found: Found, query: Scored) -> list[tuple[float, str]]:
    """(score, path) of every image, the nearest first.

    Args:
      query: one item, from the same model.

    Returns:
      Scores as `config.eval.score` of the run makes them; images of equal scores stay in the order of their paths.
    """
    scores = model.scores(query, found.items)[0]
    return [(float(scores[place]), found.files[place]) for place in np.argsort(-scores, kind="stable")]


def sheet(title: str, heading: str, best: Sequence[tuple[float, str]], folder: Path) -> bytes:
    """PNG: the best images in their order, each with its score and its path below the folder."""
    tiles = []
    for score, file in best:
        try:
            image = thumbnail(images.read_image(file))
        except images.BadImage:  # gone since it was encoded
            image = None
        tiles.append(Tile(image, f"{score:.3f} {os.path.relpath(file, folder)}"))
    return contact_sheet(title, [Section(heading, tiles)])


@terminal.command()
def main(arguments: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      arguments: as in sys.argv, the program's name first.

    Returns:
      The exit status: 0, 2 for a user's mistake, 130 after Ctrl-C.
    """
    given = _parser().parse_args(arguments[1:])
    folder, out = paths.local(given.images, "--images"), paths.local(given.out, "--out")
    if given.top < 1:
        raise UserError(f"--top is {given.top}, expected at least 1")
    if out.suffix.lower() != ".png" or out.is_dir() or not out.parent.is_dir():
        raise UserError(f"--out is {out}, expected the name of a PNG file (.png) in a folder that is there")
    files = files_in(folder, out)
    from lpi_jax.serving.load import load  # here, because JAX takes seconds to import and --help needs none of it

    model = load(given.run)
    if given.text is not None:
        title, query = f"text: {given.text}", model.index_texts(given.text)
    else:
        title, query = f"like: {given.like}", model.index_images(given.like)
    found = encode(model, files)
    if found.bad:
        counts = ", ".join(f"{count} {kind}" for kind, count in found.bad.items())
        print(f"left out: {counts}; the first: {' '.join(found.first.split())}", file=sys.stderr)
    best = ranked(model, found, query)
    for score, file in best[: given.top]:
        print(f"{score:6.3f}  {terminal.one_line(file)}")
    heading = f"the best {min(DRAWN, len(best))} of {len(best)} images in {folder}"
    data = sheet(title, heading, best[:DRAWN], folder)
    try:
        write_atomically(out, lambda file: file.write(data))
    except OSError as error:
        raise UserError(f"--out is {out}, which cannot be written: {error.strerror}") from error
    print(f"Contact sheet: {out}", file=sys.stderr)
    return terminal.OK


def _parser() -> argparse.ArgumentParser:
    parser = terminal.Parser(
        prog="python -m lpi_jax.search",
        description="Prints the images of a folder that are nearest to a text or to another image, best first, each"
        " with its score (a cosine, or what the run's config.eval.score adds up), and draws a contact sheet of the"
        " first ten.",
        epilog="Images that cannot be read are counted and left out. Exit status: 0; 2 for a mistake; 130 after"
        " Ctrl-C.",
        allow_abbrev=False,
    )
    parser.add_argument("run", metavar="RUN", help="the directory of a run, the --workdir of lpi_jax.main")
    parser.add_argument(
        "--images", required=True, metavar="FOLDER", help="where to look; folders in it are searched too"
    )
    query = parser.add_mutually_exclusive_group(required=True)
    query.add_argument("--text", help='what to look for, such as "a red flag"')
    query.add_argument("--like", metavar="IMAGE", help="an image file: looks for images like it")
    parser.add_argument("--top", type=int, default=10, metavar="N", help="how many are printed (%(default)s)")
    parser.add_argument("--out", default="search.png", metavar="FILE", help="the contact sheet, PNG (%(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv))
