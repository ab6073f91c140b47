"""Nothing in a cache is believed: what is damaged is found and made again."""

import struct
import zlib

import numpy as np
import pytest
from array_record.python.array_record_module import ArrayRecordReader, ArrayRecordWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpi_jax.data import cache
from lpi_jax.data.cache import cached, shrunk
from lpi_jax.errors import UserError
from tests.support.cached import SIDE, TRAIN, asked, assert_right, overwritten, read, shards, stream_of
from tests.support.pixels import pixels


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    """Four images in a shard: three shards of training images."""
    monkeypatch.setattr(cache, "SHARD", 4)
    cache._reader.cache_clear()


def cut(path):
    path.write_bytes(path.read_bytes()[:-70_000])


def emptied(path):
    path.write_bytes(b"")


def shortened(path):
    """A sound file with a record too few."""
    rewritten(path, ArrayRecordReader(str(path)).read_all()[:-1])


def lengthened(path):
    """A sound file with a record too many."""
    records = ArrayRecordReader(str(path)).read_all()
    rewritten(path, [*records, records[-1]])


def disordered(path):
    rewritten(path, ArrayRecordReader(str(path)).read_all()[::-1])


def rewritten(path, records):
    writer = ArrayRecordWriter(str(path), "group_size:1,uncompressed")
    for record in records:
        writer.write(record)
    writer.close()


DAMAGE = [cut, emptied, overwritten, shortened, lengthened, disordered]


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_shard_is_found_at_the_start_and_made_again_with_one_line_about_it(tmp_path, damage, capsys):
    cached(stream_of(), tmp_path, SIDE)
    damaged = shards(tmp_path)[1]
    damage(damaged)
    stream = stream_of()
    kept = cached(stream, tmp_path, SIDE)
    assert sorted(asked(stream)[0]) == [4, 5, 6, 7]
    said = capsys.readouterr().err
    assert said.strip() == f"{damaged} is damaged; its images are read from their source again"
    assert_right(read(kept))
    assert sorted(asked(stream)[0]) == [4, 5, 6, 7]


@pytest.mark.parametrize("damage", [*DAMAGE, lambda path: path.unlink()])
@pytest.mark.parametrize("opened", [False, True])
def test_a_shard_damaged_later_is_found_on_reading_and_made_again(tmp_path, damage, opened, capsys):
    stream = stream_of()
    kept = cached(stream, tmp_path, SIDE)
    if opened:
        read(kept)
    damage(shards(tmp_path)[1])
    stream.tasks[0].train.load.asked.clear()
    assert_right(read(kept))
    assert sorted(asked(stream)[0]) == [4, 5, 6, 7]
    assert capsys.readouterr().err.count("is damaged") == (0 if damage not in DAMAGE else 1)
    assert_right(read(cached(stream_of(), tmp_path, SIDE)))
    assert capsys.readouterr().err == ""


def test_one_wrong_bit_in_an_image_is_found_on_reading(tmp_path, capsys):
    kept = cached(stream_of(), tmp_path, SIDE)
    path = shards(tmp_path)[0]
    content = bytearray(path.read_bytes())
    place = content.find(shrunk(TRAIN[1], SIDE).tobytes())
    assert place > 0  # the pixels lie there as they are
    content[place + 100] ^= 1
    path.write_bytes(content)
    assert_right(read(kept))
    assert capsys.readouterr().err.count("is damaged") == 1


def forged(path, body, seed):
    """A sound file whose first record holds `body` under a right checksum."""
    records = ArrayRecordReader(str(path)).read_all()
    rewritten(path, [zlib.crc32(body, seed).to_bytes(4, "little") + body, *records[1:]])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\0" * 11,
        struct.pack("<III", 0, 2**32 - 1, 2**32 - 1) + bytes(12),
        struct.pack("<III", 0, 2, 3) + bytes(17),
        struct.pack("<III", 0, 2, 3) + bytes(19),
        struct.pack("<III", 0, 0, 5),
        struct.pack("<III", 1, 2, 3) + bytes(18),
    ],
)
def test_sizes_in_a_record_are_not_believed(tmp_path, body, capsys):
    kept = cached(stream_of(), tmp_path, SIDE)
    path = shards(tmp_path)[0]
    forged(path, body, zlib.crc32(path.parent.name.encode()))
    assert_right(read(kept))
    assert capsys.readouterr().err.count("is damaged") == 1


def test_a_wrong_image_under_the_right_checksum_would_be_shown(tmp_path):
    """The forgeries above are refused for their sizes, not because a forged checksum is wrong anyway."""
    kept = cached(stream_of(), tmp_path, SIDE)
    path = shards(tmp_path)[0]
    forged(path, struct.pack("<III", 0, 2, 3) + bytes(18), zlib.crc32(path.parent.name.encode()))
    np.testing.assert_array_equal(pixels(kept.tasks[0].train.load(0)), np.zeros((2, 3, 3), np.uint8))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_whatever_is_in_the_files_the_right_images_come_out(tmp_path, capsys, data):
    kept = cached(stream_of(), tmp_path, SIDE)
    path = data.draw(st.sampled_from(shards(tmp_path)))
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, 400) | st.integers(0, len(content)))
        end = start + data.draw(st.integers(0, 40) | st.integers(0, len(content)))
        content[start:end] = data.draw(st.binary(max_size=40))
    path.write_bytes(content)
    assert_right(read(kept))


def test_a_disk_that_loses_what_is_written_is_one_sentence(tmp_path, monkeypatch):
    kept = cached(stream_of(), tmp_path, SIDE)
    shards(tmp_path)[0].unlink()
    monkeypatch.setattr(cache, "write_atomically", lambda path, write: None)
    with pytest.raises(UserError, match=r"00000-of-00003\.array_record cannot be read back although it was just"):
        kept.tasks[0].train.load(0)
