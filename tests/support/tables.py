"""Small tables of images, CSV and Parquet, and what a damaged one ends in: for the tests of both."""

import io

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from PIL import Image

from lpi_jax.errors import UserError
from tests.support.sources import table

HEADER = "image,caption,task,split"


GOOD = [
    "img/1.png,a cat,cats,train",
    "img/2.png,another cat,cats,val",
    "img/3.png,a dog,dogs,train",
    "img/4.png,another dog,dogs,val",
]


def encoded(shade):
    file = io.BytesIO()
    Image.new("RGB", (6, 4), (shade, 0, 0)).save(file, "png")
    return file.getvalue()


def csv_of(folder, lines, header=HEADER, ending="\n", name="table.csv"):
    raw = [x if isinstance(x, bytes) else x.encode() for x in [header, *lines]]
    path = folder / name
    path.write_bytes(ending.encode().join(raw) + ending.encode())
    return path


def parquet_of(folder, columns, name="table.parquet", **how):
    pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), folder / name, **how)
    return folder / name


def columns_of(count=4, **more):
    """Four good rows like those of GOOD."""
    return {
        "image": [f"img/{number}.png" for number in range(1, count + 1)],
        "caption": [f"number {number}" for number in range(1, count + 1)],
        "task": ["cats", "cats", "dogs", "dogs"][:count],
        "split": ["train", "val", "train", "val"][:count],
    } | more


def outcome(path, **columns):
    for mode in ("error", "skip"):
        try:
            stream = table(path, on_bad_example=mode, **columns)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert all(len(task.train) and len(task.val) for task in stream.tasks)
            if mode == "skip":
                yield stream


def damaged(data, raw):
    raw = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw) - 1))
        end = min(start + data.draw(st.integers(0, 12)), len(raw))
        raw[start:end] = data.draw(st.binary(max_size=6) | st.sampled_from([b'"', b"\n", b",", b'"\n"']))
    return bytes(raw[: data.draw(st.just(len(raw)) | st.integers(0, len(raw)))])


SPREAD = [(task, split) for task in ("cats", "dogs") for split in ("train", "val")] * 2


def write_folder(tmp_path):
    """Nine sound images img/1.png ... img/9.png, whose red is their number, and some bad ones."""
    (tmp_path / "img").mkdir()
    for number in range(1, 10):
        (tmp_path / f"img/{number}.png").write_bytes(encoded(number))
    (tmp_path / "img/empty.png").write_bytes(b"")
    (tmp_path / "img/cut.png").write_bytes(encoded(1)[:-20])
    (tmp_path / "img/text.jpg").write_text("no image")
    return tmp_path
