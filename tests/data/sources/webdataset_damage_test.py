"""Damaged and hostile tar shards: no damage ever pairs what does not belong."""

import io
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lpi_jax.errors import UserError
from tests.support.pixels import shades
from tests.support.sealed import nothing_is_paired_wrongly, sealed
from tests.support.sources import webdataset
from tests.support.splits import captions_of
from tests.support.tar_shards import GOOD, image, pair, shard, tarred


@pytest.fixture
def folder(tmp_path):
    """Task toys with images 1 and 2 for training and 3 for validation."""
    shard(tmp_path, "data/toys/train-000.tar", GOOD)
    shard(tmp_path, "data/toys/val-000.tar", pair(3))
    return tmp_path / "data"


def headers(raw):
    """Offsets of the headers in a tar file of plain members."""
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        return [member.offset for member in archive]


def checked(raw, header):
    """The archive with the right checksum in the header at an offset."""
    block = bytearray(raw[header : header + 512])
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return raw[:header] + bytes(block) + raw[header + 512 :]


def with_field(raw, header, place, value):
    start = header + place
    return checked(raw[:start] + value + raw[start + len(value) :], header)


WHOLE = tarred(pair(1) + pair(2) + pair(4))
AT = headers(WHOLE)
DAMAGED = {
    "cut inside an image": (WHOLE[: AT[4] + 520], {"damaged archive": 1}, [1, 2], "inside member '0004.png'"),
    "cut between image and caption": (
        WHOLE[: AT[5]],
        {"damaged archive": 2},
        [1, 2],
        "cut off after member '0004.png'",
    ),
    "cut inside a header": (WHOLE[: AT[5] + 100], {"damaged archive": 2}, [1, 2], "after member '0004.png'"),
    "cut inside a caption": (WHOLE[: AT[5] + 515], {"damaged archive": 2}, [1, 2], "inside member '0004.txt'"),
    "cut at the end mark": (WHOLE[: AT[5] + 1024], {"damaged archive": 1}, [1, 2, 4], "after member '0004.txt'"),
    "a flipped bit in a header": (
        WHOLE[: AT[4]] + b"\x31" + WHOLE[AT[4] + 1 :],
        {"damaged archive": 1},
        [1, 2],
        "after member '0002.txt'",
    ),
    "a size beyond the end": (
        with_field(WHOLE, AT[5], 124, b"77777777777\0"),
        {"damaged archive": 2},
        [1, 2],
        "ends inside member '0004.txt'",
    ),
    "a negative size": (with_field(WHOLE, AT[4], 124, b"\xff" * 12), {"damaged archive": 1}, [1, 2], "0004.png"),
    "an extended header of gigabytes": (
        with_field(with_field(WHOLE, AT[4], 156, b"x"), AT[4], 124, b"17777777777\0"),
        {"damaged archive": 1},
        [1, 2],
        "a header of 2147483648 bytes",
    ),
    "two archives in one file": (
        WHOLE + tarred(pair(5)),
        {"damaged archive": 1},
        [1, 2, 4],
        "two archives in one file",
    ),
    "no tar": (b"this is no tar archive" * 100, {"damaged archive": 1}, [], "damaged at its start"),
    "nothing": (b"", {"damaged archive": 1}, [], r"damaged at its start \(empty file\)"),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_a_damaged_archive_is_told_with_its_place_and_keeps_what_stands_before(folder, case):
    raw, counted, kept, message = DAMAGED[case]
    shard(folder, "toys/train-000.tar", pair(6) + pair(7))
    path = shard(folder, "toys/train-001.tar", raw)
    with pytest.raises(UserError, match=message) as caught:
        webdataset(folder)
    text = str(caught.value)
    assert (
        text.startswith(f"{path}: ") and "\n" not in text and len(text) < 500 and caught.value.kind == "damaged archive"
    )
    stream = webdataset(folder, on_bad_example="skip")
    assert stream.skipped == counted and shades(stream.tasks[0].train) == [6, 7, *kept]
    assert captions_of(stream.tasks[0].train)[2:] == tuple((f"number {number}",) for number in kept)


def test_endless_chains_of_extended_headers_end_in_an_error(folder):
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 0
    shard(folder, "toys/train-001.tar", header.tobuf(tarfile.USTAR_FORMAT) * 5000)
    with pytest.raises(UserError, match="damaged at its start"):
        webdataset(folder)


def test_sparse_members_are_not_images(folder):
    raw = with_field(tarred([("b.png", image(9)), ("b.txt", b"b")]), 0, 156, b"S")
    shard(folder, "toys/train-001.tar", raw)
    with pytest.raises(UserError, match=r"'b.png' is no file in the shard|damaged"):
        webdataset(folder)


FUZZED = [
    tarred([m for i in range(4) for m in pair(i, sealed(i))], form) for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
]


def outcome(folder):
    for mode in ("error", "skip"):
        try:
            stream = webdataset(folder, on_bad_example=mode)
        except UserError as error:
            assert str(folder) in str(error) and "\n" not in str(error)
        else:
            assert all(len(task.train) and len(task.val) for task in stream.tasks)
            if mode == "skip":
                nothing_is_paired_wrongly(stream)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_damaged_bytes_end_in_a_user_error_or_a_sound_stream(folder, data):
    raw = bytearray(data.draw(st.sampled_from(FUZZED)))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(raw) - 1))
        end = min(start + data.draw(st.integers(0, 600)), len(raw))
        raw[start:end] = data.draw(st.binary(max_size=6) | st.just(b"\0" * 512) | st.just(bytes(raw[:512])))
    shard(folder, "toys/train-000.tar", bytes(raw[: data.draw(st.integers(0, len(raw)) | st.just(len(raw)))]))
    outcome(folder)


FIELDS = {0: 100, 124: 12, 136: 12, 156: 1, 157: 100, 257: 8, 345: 155}


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_hostile_headers_with_right_checksums_end_in_a_user_error_or_a_sound_stream(folder, data):
    raw = data.draw(st.sampled_from(FUZZED))
    for _ in range(data.draw(st.integers(1, 3))):
        header = 512 * data.draw(st.integers(0, len(raw) // 512 - 1))
        place = data.draw(st.sampled_from(sorted(FIELDS)))
        value = data.draw(
            st.binary(min_size=1, max_size=min(12, FIELDS[place]))
            | st.sampled_from([b"x", b"g", b"L", b"K", b"S", b"1", b"5", b"\xff" * 12, b"\x80" + b"\0" * 10 + b"\1"])
        )
        raw = with_field(raw, header, place, value[: FIELDS[place]])
    shard(folder, "toys/train-000.tar", raw)
    outcome(folder)
