"""The same examples in every form that own data may have, for tests of what must not depend on the form."""

import io
import json
import tarfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from lpi_jax.data.stream import Stream
from tests.support.sources import jsonl, table, webdataset


class Row(NamedTuple):
    """One line, row or member: the red of its image, its one caption, and the rest."""

    shade: int
    caption: str
    task: str = "cats"
    split: str = "train"
    description: str | None = None


GOOD = [Row(1, "a cat"), Row(2, "another cat", split="val")]
Written = Callable[..., Stream]
Paint = Callable[[int], bytes]  # shade -> the encoded image


def encoded(shade: int) -> bytes:
    """An image of that red; all are encoded in the same number of bytes."""
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, 0, 0)).save(file, "png", compress_level=0)
    return file.getvalue()


def _records(folder: Path, rows: Sequence[Row], paint: Paint = encoded) -> list[dict[str, Any]]:
    for row in rows:
        (folder / f"{row.shade}.png").write_bytes(paint(row.shade))
    return [{"image": f"{row.shade}.png", **row._asdict()} for row in rows]


def _jsonl(folder: Path, rows: Sequence[Row], paint: Paint = encoded) -> Written:
    records = [{**record, "captions": [record["caption"]]} for record in _records(folder, rows, paint)]
    (folder / "stream.jsonl").write_text("\n".join(map(json.dumps, records)))
    return lambda **options: jsonl(folder / "stream.jsonl", **options)


def _csv(folder: Path, rows: Sequence[Row], paint: Paint = encoded) -> Written:
    columns = ("image", "caption", "task", "split", "description")
    cells = [
        [str(record[column] or "").replace('"', '""') for column in columns] for record in _records(folder, rows, paint)
    ]
    lines = [",".join(columns), *(",".join(f'"{cell}"' for cell in row) for row in cells)]
    (folder / "table.csv").write_text("\n".join(lines))
    return lambda **options: table(folder / "table.csv", description="description", **options)


def _parquet(folder: Path, rows: Sequence[Row], paint: Paint = encoded) -> Written:
    return _parquet_of(folder, _records(folder, rows, paint))


def _parquet_inside(folder: Path, rows: Sequence[Row], paint: Paint = encoded) -> Written:
    return _parquet_of(folder, [{**row._asdict(), "image": paint(row.shade)} for row in rows])


def _parquet_of(folder: Path, records: list[dict[str, Any]]) -> Written:
    pq.write_table(pa.Table.from_pylist(records), folder / "table.parquet")
    return lambda **options: table(folder / "table.parquet", description="description", **options)


def _shards(folder: Path, rows: Sequence[Row], paint: Paint = encoded) -> Written:
    with tarfile.open(folder / "all.tar", "w") as archive:
        for number, row in enumerate(rows):
            for ending, content in (("png", paint(row.shade)), ("json", json.dumps(row._asdict()).encode())):
                member = tarfile.TarInfo(f"{number}.{ending}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return lambda **options: webdataset(folder / "all.tar", **options)


# (folder, rows, paint) -> writes them; a function (options of the source) that reads them as a stream.
FORMS: dict[str, Callable[..., Written]] = {
    "JSON Lines": _jsonl,
    "CSV": _csv,
    "Parquet": _parquet,
    "images in Parquet": _parquet_inside,
    "shards": _shards,
}
