"""Bad data, from the file to the batch: a sentence that names file and line, or a counted skip; never a wrong pairing.

Every image here has a number, which its colour, its captions and its file's name all tell, so that whatever comes out
at the end can be held against what went in.
"""

import functools
import io
import json
import os
import re
import struct
import unicodedata
import zlib
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lpi_jax.data.examples import BadExample
from lpi_jax.data.images import BadImage
from lpi_jax.data.loader import Transform
from lpi_jax.data.transforms import clean_caption
from lpi_jax.errors import UserError
from lpi_jax.main import main
from lpi_jax.models.tokenizer import Tokenizer
from lpi_jax.problems.retrieval.assemble import BUNDLED
from lpi_jax.problems.retrieval.captions import Captions
from tests.support.batches import batches_of
from tests.support.pixels import pixels
from tests.support.sources import jsonl
from tests.support.splits import captions_of

CONTEXT = 77
FUZZ = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def colour(number):
    return 20 + 7 * number, 240 - 7 * number, 60 * (number % 4)


@functools.cache
def encoded(number, form="PNG", mode="RGB", **options):
    data = io.BytesIO()
    Image.new("RGB", (24, 24), colour(number)).convert(mode).save(data, form, **options)
    return data.getvalue()


def noise(form="JPEG"):
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(data, form)
    return data.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, *chunks):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def row(number, task="toys", split="train", **more):
    captions = [f"image number {number}", f"another word for {number}"]
    return {"image": f"{number}.png", "captions": captions, "task": task, "split": split, **more}


def write(folder, rows, images=None, ascii_only=True):
    """The manifest of some rows (records, or bytes as they are), and a sound image for each number below twenty."""
    for number in range(20):
        (folder / f"{number}.png").write_bytes((images or {}).get(number, encoded(number)))
    lines = (x if isinstance(x, bytes) else json.dumps(x, ensure_ascii=ascii_only).encode() for x in rows)
    path = folder / "stream.jsonl"
    path.write_bytes(b"\n".join(lines))
    return path


ROWS = [row(i, task=("toys", "pets")[i % 2], split="val" if i % 5 == 0 else "train") for i in range(20)]


def splits(stream):
    return [(task, name, getattr(task, name)) for task in stream.tasks for name in ("train", "val")]


def assert_paired(stream):
    """Whatever is in the stream is what one of ROWS says of one file. Returns the sorted numbers of the images."""
    by_image = {record["image"]: record for record in ROWS}
    numbers = []
    for task, name, split in splits(stream):
        for index, (key, captions) in enumerate(zip(split.keys, captions_of(split), strict=True)):
            record, number = by_image[key], int(Path(key).stem)
            assert (record["task"], record["split"], tuple(record["captions"])) == (task.name, name, captions)
            assert str(number) in captions[0]
            assert tuple(pixels(split.load(index))[12, 12]) == colour(number)
            numbers.append(number)
    assert len(set(numbers)) == len(numbers) == stream.notes["images"]
    return sorted(numbers)


# ---- images of unusual kinds ---------------------------------------------------------------------------------------


def animation(number, form, **options):
    frames = [Image.new("RGB", (24, 24), colour(n)) for n in (number, 19)]
    data = io.BytesIO()
    frames[0].save(data, form, save_all=True, append_images=frames[1:], **options)
    return data.getvalue()


def palette(number):
    """The colour, but for one transparent corner."""
    image = Image.new("P", (24, 24), 0)
    image.putpalette([*colour(number), *([0] * 765)])
    image.putpixel((0, 0), 1)
    data = io.BytesIO()
    image.save(data, "PNG", transparency=1)
    return data.getvalue()


def deep(number):
    """16-bit grey: the red of the colour."""
    data = io.BytesIO()
    Image.fromarray(np.full((24, 24), colour(number)[0] * 257, np.uint16)).save(data, "PNG")
    return data.getvalue()


def grey(number):
    """The light in the colour, as ITU-R 601 and Pillow have it."""
    return [round(np.dot((0.299, 0.587, 0.114), colour(number)))] * 3


UNUSUAL = [  # content, and the colour that should be seen
    (lambda n: animation(n, "GIF"), colour),
    (lambda n: animation(n, "PNG"), colour),
    (lambda n: animation(n, "WEBP", lossless=True), colour),
    (lambda n: encoded(n, "JPEG", "CMYK", quality=98), colour),
    (deep, lambda n: [colour(n)[0]] * 3),
    (palette, colour),
    (lambda n: encoded(n, "PNG", "LA"), grey),
    (lambda n: encoded(n, "JPEG", quality=98), colour),  # whatever it is called
    (lambda n: encoded(n, "BMP"), colour),
]


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_images_of_unusual_kinds_are_read_as_what_they_are(tmp_path, mode):
    stream = jsonl(write(tmp_path, ROWS, {n: make(n) for n, (make, _) in enumerate(UNUSUAL)}), on_bad_example=mode)
    assert stream.skipped == {} and stream.notes["images"] == 20
    for _, _, split in splits(stream):
        for index, (key, captions) in enumerate(zip(split.keys, captions_of(split), strict=True)):
            number = int(Path(key).stem)
            assert captions[0] == f"image number {number}"
            expected = dict(enumerate(seen for _, seen in UNUSUAL)).get(number, colour)(number)
            np.testing.assert_allclose(Transform(8)(split.load(index), ())[4, 4], expected, atol=4)


def test_a_transparent_corner_is_white(tmp_path):
    split = jsonl(write(tmp_path, ROWS, {2: palette(2)})).tasks[0].train
    assert pixels(split.load(split.keys.index("2.png")))[0, 0].tolist() == [255, 255, 255]


# ---- bad images ----------------------------------------------------------------------------------------------------

TEXT_BOMB = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 26)))
BAD_IMAGES = {
    "zero bytes": (b"", "unreadable image"),
    "a web page": (b"<!doctype html><title>404 Not Found</title>", "unreadable image"),
    "a vector drawing": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unreadable image"),
    "a document": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "unreadable image"),
    "truncated header": (noise()[:12], "unreadable image"),
    "truncated JPEG": (noise()[:1500], "unreadable image"),
    "truncated PNG": (noise("PNG")[:1500], "unreadable image"),
    "truncated WebP": (noise("WEBP")[:300], "unreadable image"),
    "truncated animation": (animation(3, "GIF")[:60], "unreadable image"),
    "damaged PNG": (noise("PNG")[:2000] + b"\0\1\2\3" + noise("PNG")[2004:], "unreadable image"),
    "PNG without pixels": (png(24, 24), "unreadable image"),
    "PNG with too few pixels": (png(24, 24, chunk(b"IDAT", zlib.compress(bytes(100)))), "unreadable image"),
    "PNG 0 pixels wide": (png(0, 24, chunk(b"IDAT", zlib.compress(b""))), "unreadable image"),
    "PNG with 64 MB of text": (png(24, 24, TEXT_BOMB), "unreadable image"),
    "huge PNG": (png(60_000, 60_000, chunk(b"IDAT", zlib.compress(bytes(100)))), "image too large"),
    "large PNG": (png(8_000, 8_000, chunk(b"IDAT", zlib.compress(bytes(100)))), "image too large"),
    "huge GIF": (encoded(7, "GIF")[:6] + b"\xff\xff\xff\xff" + encoded(7, "GIF")[10:], "image too large"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_a_bad_image_is_named_with_its_line_or_is_a_counted_skip(tmp_path, name):
    content, kind = BAD_IMAGES[name]
    path = write(tmp_path, ROWS, {7: content})
    with pytest.raises(BadImage) as caught:
        for _, _, split in splits(jsonl(path)):  # at the latest when the image is loaded
            for index in range(len(split)):
                split.load(index)
    message = str(caught.value)
    assert caught.value.kind == kind
    assert message.startswith(f"{path}, line 8: {tmp_path / '7.png'}: ")
    assert "\n" not in message and len(message) < 500
    stream = jsonl(path, on_bad_example="skip")
    assert stream.skipped == {kind: 1}
    assert assert_paired(stream) == [n for n in range(20) if n != 7]


def test_an_image_that_breaks_inside_a_loader_thread_is_named(tmp_path):
    path = write(tmp_path, ROWS, {7: noise()[:1500]})
    split = jsonl(path).tasks[1].train  # the header is sound: so far nothing is wrong
    assert "7.png" in split.keys
    ids = [np.ones((2, CONTEXT), np.int32)] * len(split)
    with pytest.raises(BadImage, match=r"stream\.jsonl, line 8: .*7\.png: .*truncated") as caught:
        list(batches_of(split, ids, Transform(8, "random"), range(4), batch=4, task=1))
    assert caught.value.kind == "unreadable image"


# ---- pairing ---------------------------------------------------------------------------------------------------------

DAMAGE = {
    "missing file": lambda n, folder: (folder / f"{n}.png").unlink(),
    "unreadable image": lambda n, folder: (folder / f"{n}.png").write_bytes(noise()[: 100 * n]),
    "image too large": lambda n, folder: (folder / f"{n}.png").write_bytes(BAD_IMAGES["huge PNG"][0]),
}
BAD_ROWS = {
    "not JSON": lambda record: json.dumps(record)[:-1].encode(),
    "not UTF-8": lambda record: json.dumps(record).encode().replace(b"image", b"pict\xffre"),
    "no captions": lambda record: {**record, "captions": []},
    "empty caption": lambda record: {**record, "captions": ["?!", " ... "]},
    "unknown split": lambda record: {**record, "split": "test"},
    "missing key": lambda record: {key: value for key, value in record.items() if key != "split"},
    "wrong type": lambda record: {**record, "captions": record["captions"][0]},
}


def said(number):
    return ROWS[number]["task"], ROWS[number]["split"]


@settings(max_examples=60, **FUZZ)
@given(
    st.permutations(range(20)),
    st.dictionaries(st.integers(0, 19), st.sampled_from([*DAMAGE, *BAD_ROWS]), max_size=12),
)
def test_after_any_skips_every_key_caption_and_image_still_belong_together(tmp_path, order, bad):
    rows = [BAD_ROWS[bad[n]](ROWS[n]) if bad.get(n) in BAD_ROWS else ROWS[n] for n in order]
    path = write(tmp_path, rows)
    for number, kind in bad.items():
        if kind in DAMAGE:
            DAMAGE[kind](number, tmp_path)
    left = {number for number in range(20) if number not in bad}
    if {said(n) for n in left} < {said(n) for n in range(20)}:
        with pytest.raises(UserError, match=r"has no (train|val) images once"):
            jsonl(path, on_bad_example="skip")
        return
    stream = jsonl(path, on_bad_example="skip")
    assert assert_paired(stream) == sorted(left)
    assert stream.skipped == {kind: list(bad.values()).count(kind) for kind in set(bad.values())}
    in_order = [n for task, name, _ in splits(stream) for n in order if n in left and said(n) == (task.name, name)]
    assert in_order == [int(Path(key).stem) for _, _, split in splits(stream) for key in split.keys]


def test_batches_after_skips_hold_images_with_their_own_captions(tmp_path, tokenizer):
    rows = [row(n, split="val" if n == 0 else "train") for n in range(20)]
    rows[4] = BAD_ROWS["not JSON"](rows[4])
    path = write(tmp_path, rows, {9: b"", 13: noise()[:1500]})
    split = jsonl(path, on_bad_example="skip").tasks[0].train
    ids = [Captions(tokenizer, CONTEXT, 30)(captions, 0) for captions in captions_of(split)]
    seen = set()
    for images, rows_of_ids in batches_of(split, ids, Transform(8, "random"), range(16), batch=4, seed=3):
        for image, tokens in zip(images, rows_of_ids, strict=True):
            (number,) = (n for n in range(20) if image[4, 4].tolist() == list(colour(n)))
            own = Captions(tokenizer, CONTEXT, 30)(row(number)["captions"], 0)[:, : len(tokens)]
            assert any((tokens == caption).all() for caption in own)
            seen.add((number, int((tokens == own[1]).all())))
    assert seen == {(n, caption) for n in range(1, 20) if n not in (4, 9, 13) for caption in (0, 1)}


def test_an_image_in_another_task_or_split_keeps_the_captions_of_its_first_line(tmp_path):
    for again in (row(3, "toys"), row(3, "pets", "val"), {**row(3, "toys"), "captions": ["image number 3000"]}):
        path = write(tmp_path, [*ROWS, again])
        with pytest.raises(BadExample, match=r"line 21: image '3\.png' stands already in line 4") as caught:
            jsonl(path)
        assert caught.value.kind == "repeated image"
        stream = jsonl(path, on_bad_example="skip")
        assert stream.skipped == {"repeated image": 1}
        assert assert_paired(stream) == list(range(20))


def test_equal_images_in_two_files_are_two_images(tmp_path):
    stream = jsonl(write(tmp_path, ROWS, {4: encoded(6)}))
    assert stream.notes["images"] == 20 and stream.skipped == {}


@settings(max_examples=50, **FUZZ)
@given(st.data())
def test_a_damaged_manifest_never_mixes_up_lines(tmp_path, data):
    text = bytearray(write(tmp_path, ROWS).read_bytes())
    for _ in range(data.draw(st.integers(1, 5))):
        start = data.draw(st.integers(0, len(text) - 1))
        end = min(start + data.draw(st.integers(0, 40)), len(text))
        text[start:end] = data.draw(st.binary(max_size=4) | st.sampled_from([b"\n", b"3", b'"', b"1.png"]))
    path = tmp_path / "stream.jsonl"
    path.write_bytes(text)
    try:
        stream = jsonl(path, on_bad_example="skip")
    except UserError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return

    def same(image, key):  # damage may make a number of a name
        return isinstance(image, str) and os.path.realpath(tmp_path / image) == os.path.realpath(tmp_path / key)

    lines = [said_so for line in bytes(text).split(b"\n") if (said_so := told(line))]
    for task, name, split in splits(stream):
        for index, (key, captions) in enumerate(zip(split.keys, captions_of(split), strict=True)):
            own = [words for image, words, *place in lines if same(image, key) and place == [task.name, name]]
            assert list(captions) in own or set(captions) == set(chain(*own))  # one line, or all that name it
            number = int(Path(key).stem)  # a damaged name still leads to the file of that name, or to none
            assert (tmp_path / key).samefile(tmp_path / f"{number}.png")
            assert tuple(pixels(split.load(index))[12, 12]) == colour(number)


def told(line):
    """What a line says, read in the plainest way; a caption of punctuation alone says nothing."""
    try:
        record = json.loads(line)
        captions = [caption for caption in record["captions"] if re.sub(r"[\s,.'!?\"()*#:;~/-]", "", caption)]
        return record["image"], captions, record["task"], record["split"]
    except (ValueError, TypeError, KeyError):
        return None


@settings(max_examples=50, **FUZZ)
@given(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"]), st.data())
def test_damaged_files_are_named_or_skipped_and_the_others_stay_as_they_are(tmp_path, form, data):
    content = bytearray(encoded(7, form))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(content) - 1))
        content[start : start + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=8))
        content = content or bytearray(1)
    path = write(tmp_path, ROWS, {7: bytes(content)})
    stream = jsonl(path, on_bad_example="skip", max_pixels=1_000_000)
    numbers = [int(Path(key).stem) for _, _, split in splits(stream) for key in split.keys]
    assert len(numbers) + sum(stream.skipped.values()) == 20
    assert set(range(20)) - set(numbers) <= {7}
    for _, _, split in splits(stream):
        for index, (key, captions) in enumerate(zip(split.keys, captions_of(split), strict=True)):
            number = int(Path(key).stem)
            assert captions[0] == f"image number {number}"
            assert number == 7 or tuple(pixels(split.load(index))[12, 12]) == colour(number)
    try:
        for _, _, split in splits(jsonl(path, max_pixels=1_000_000)):
            for index in range(len(split)):
                split.load(index)
        assert stream.skipped == {}
    except BadImage as error:
        assert str(error).startswith(f"{path}, line 8: ") and stream.skipped == {error.kind: 1}


# ---- captions --------------------------------------------------------------------------------------------------------

WRITTEN = {
    "Arabic": "قطة حمراء، على كرسي!",
    "Hebrew": "חתול אָדֹם \u202bעל\u202c כיסא",
    "emoji": "🐱 👩‍👩‍👧 🇦🇶 cat ❤️",
    "Chinese": "一只红色的猫。",
    "Devanagari": "लाल बिल्ली",
    "composed and not": "caf\u00e9 cafe\u0301",
    "Turkish": "İSTANBUL'da kırmızı kedi",
    "line separators": "red\u2028cat\u0085sat\x0bup",
}


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer.load(BUNDLED)


def assert_valid(ids, tokenizer, placeholders):
    """Rows of [SOT, placeholders, at least one token, EOT, zeros], each EOT once and where the towers look for it."""
    end = tokenizer.vocab_size - 1
    assert ids.dtype == np.int32 and ids.shape[1] == CONTEXT and ids.min() >= 0 and ids.max() == end
    for tokens in ids:
        (place,) = np.flatnonzero(tokens == end)
        assert place == tokens.argmax() and place >= placeholders + 2
        assert not tokens[place + 1 :].any()
        assert tokens[0] == end - 1 and (tokens[1:] != end - 1).all()
        assert len(set(tokens[1 : placeholders + 1].tolist())) <= 1


@pytest.mark.parametrize("ascii_only", [True, False])
def test_captions_of_all_scripts_come_through_as_written(tmp_path, ascii_only):
    captions = list(WRITTEN.values())
    rows = [*ROWS, row(50, "قطط 🐈"), row(51, "قطط 🐈", "val", captions=captions, description="חתולים")]
    for number in (50, 51):
        (tmp_path / f"{number}.png").write_bytes(encoded(1))
    task = jsonl(write(tmp_path, rows, ascii_only=ascii_only)).tasks[2]
    assert (task.name, task.description) == ("قطط 🐈", "חתולים")
    assert captions_of(task.val) == (tuple(captions),)


@pytest.mark.parametrize("caption", WRITTEN.values(), ids=WRITTEN)
def test_captions_of_all_scripts_become_valid_tokens_of_the_same_words(tokenizer, caption):
    ids = Captions(tokenizer, CONTEXT, 30)([caption], 8)
    assert_valid(ids, tokenizer, 8)
    assert Captions(tokenizer, CONTEXT, 30).count_cut([caption], 8) == 0
    tokens = ids[0, 9 : ids[0].argmax()].tolist()
    assert bare(tokenizer._backend.decode(tokens)) == bare(clean_caption(caption))


def bare(text):
    """Without white space and control characters, which no tokenizer keeps; composed."""
    kept = (c for c in unicodedata.normalize("NFC", text) if not c.isspace() and unicodedata.category(c) != "Cc")
    return "".join(kept)


def test_captions_longer_than_the_context_are_cut_and_still_end(tokenizer):
    captions = ["👩‍👩‍👧 " * 30, "قطة " * 200, "x" * 100_000, "猫" * 5_000, "a cat"]
    encode = Captions(tokenizer, CONTEXT, 30)
    ids = encode(captions, 16)
    assert_valid(ids, tokenizer, 16)
    assert (ids.argmax(1) == CONTEXT - 1).tolist() == [True, True, True, True, False]
    assert encode.count_cut(captions, 16) == 4


@settings(max_examples=150, deadline=None)
@given(st.lists(st.text(max_size=60), min_size=1, max_size=4))
def test_any_text_is_refused_or_becomes_valid_tokens(tokenizer, texts):
    captions = []
    for text in texts:
        try:
            captions.append(clean_caption(text))
        except ValueError:
            assert not any(letter.isalnum() for letter in text)
    assert [clean_caption(caption) for caption in captions] == captions
    if captions:
        assert_valid(Captions(tokenizer, CONTEXT, 30)(captions, 8), tokenizer, 8)


# ---- whole runs ------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, small_settings, capfd):
    """(manifest, changes by key) -> exit status and what stands on stderr, of a small run on it."""

    def start(path, **changes):
        config = tmp_path / "experiment.py"
        config.write_text("from lpi_jax import config\n\n\nget_config = config.intended\n")
        wanted = {**small_settings, "data.name": "jsonl", "data.path": path, "train.batch": 8, **changes}
        unread = ("data.domains", "data.train", "data.val")
        flags = [f"--config.{key}={value}" for key, value in wanted.items() if key not in unread]
        status = main(["main", f"--config={config}", f"--workdir={tmp_path / 'run'}", *flags])
        return status, capfd.readouterr().err

    return start


def test_a_run_that_meets_a_damaged_image_ends_with_its_name(tmp_path, run):
    rows = [row(n, split="val" if n == 0 else "train") for n in range(5)]  # all eight captions are in the first batch
    path = write(tmp_path, rows, {3: noise()[:1500]})
    status, err = run(path)
    assert status == 2
    assert err.splitlines()[-1].startswith(f"error: {path}, line 4: {tmp_path / '3.png'}: the image cannot be decoded")
    assert "Traceback" not in err


@pytest.mark.parametrize("mode", ["error", "skip"])
def test_a_task_of_one_example_is_a_stream_but_fills_no_batch(tmp_path, run, mode):
    one = [row(1), {**row(2), "split": "val", "captions": ["image number 2"]}]
    path = write(tmp_path, [{**one[0], "captions": ["image number 1"]}, one[1]])
    stream = jsonl(path, on_bad_example=mode)
    assert [len(split) for _, _, split in splits(stream)] == [1, 1]
    status, err = run(path, **{"data.on_bad_example": mode})
    assert status == 2
    assert err.splitlines()[-1].startswith("error: task 'toys' has 1 training examples, too few for a batch")


def test_nothing_is_left_once_bad_data_has_ended(tmp_path):
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("open files cannot be counted here")
    path = write(tmp_path, ROWS, {n: content for n, (content, _) in enumerate(BAD_IMAGES.values())})
    before = len(os.listdir("/proc/self/fd"))
    for mode in ("error", "skip"):
        with pytest.raises(UserError):
            jsonl(path, on_bad_example=mode)
    assert len(os.listdir("/proc/self/fd")) == before
