"""`lpi_jax.load`: what a run has trained, as a model that routes like the run's own gallery."""

import json
import shutil

import jax
import numpy as np
import pytest
from PIL import Image

import lpi_jax
from lpi_jax.data.images import read_image
from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import stream_of
from lpi_jax.models import weights
from lpi_jax.models.clip_start import init_params
from lpi_jax.problems.retrieval.retriever import Retriever
from lpi_jax.problems.saved import read
from lpi_jax.serving import load as serving
from tests.support.pixels import pixels
from tests.support.splits import captions_of

EXACT = {"rtol": 0, "atol": 1e-6}


@pytest.fixture(scope="module")
def model(finished_run):
    return lpi_jax.load(finished_run.directory)


@pytest.fixture(scope="module")
def stream(finished_run):
    return stream_of(finished_run.config, 32)


@pytest.fixture(scope="module")
def own(finished_run):
    """What the run itself computed of its validation items: array by name."""
    (path,) = (finished_run.directory / "features").glob("task_*")
    return {name.removeprefix("stream."): part for name, part in read(path).items()}


@pytest.fixture(scope="module")
def pictures(stream):
    """[24, 32, 32, 3] uint8, the validation pictures of all tasks."""
    return np.stack([pixels(task.val.load(i)) for task in stream.tasks for i in range(len(task.val))])


def assert_features(found, count):
    assert found.shape == (count, 16)
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-5)


def test_it_knows_its_tasks(model, finished_run):
    assert model.tasks == tuple(finished_run.results["tasks"])


def test_pictures_get_the_features_of_the_runs_gallery(model, own, pictures):
    found = model.encode_image(pictures)
    assert_features(found, len(pictures))
    np.testing.assert_allclose(found, own["images.features"], **EXACT)
    assert len(np.unique(own["images.routed"])) > 1  # routing had something to decide
    assert np.abs(found - own["images.plain"]).max() > 1e-2  # and prompts to change


def test_captions_get_the_features_of_the_runs_gallery(model, own, stream):
    words = [caption for task in stream.tasks for captions in captions_of(task.val) for caption in captions]
    found = model.encode_text(words)
    assert_features(found, len(words))
    np.testing.assert_allclose(found, own["captions.features"], **EXACT)
    assert np.abs(found - own["captions.plain"]).max() > 1e-2


def test_an_item_is_the_same_alone_and_in_company(model, pictures):
    whole = model.encode_image(pictures)
    np.testing.assert_allclose(model.encode_image(pictures[5:6]), whole[5:6], **EXACT)
    np.testing.assert_allclose(model.encode_image(pictures[::-1]), whole[::-1], **EXACT)
    np.testing.assert_allclose(model.encode_image(pictures[7]), whole[7:8], **EXACT)
    several = model.encode_text(["two rings", "a red circle"])
    np.testing.assert_allclose(model.encode_text("a red circle"), several[1:], **EXACT)


def test_pillow_pictures_arrays_and_mixtures_are_the_same_pictures(model, pictures):
    expected = model.encode_image(pictures[:3])
    images = [Image.fromarray(picture) for picture in pictures[:3]]
    np.testing.assert_allclose(model.encode_image(images[0]), expected[:1], **EXACT)
    np.testing.assert_allclose(model.encode_image(images), expected, **EXACT)
    np.testing.assert_allclose(model.encode_image((images[0], pictures[1], images[2])), expected, **EXACT)
    np.testing.assert_allclose(model.encode_image(image for image in images), expected, **EXACT)
    np.testing.assert_allclose(model.encode_image(jax.numpy.asarray(pictures[:3])), expected, **EXACT)


def test_pictures_may_be_of_any_sizes(model):
    rng = np.random.default_rng(0)
    odd = [
        rng.integers(0, 256, (height, width, 3), np.uint8) for height, width in ((1, 1), (7, 90), (200, 33), (32, 32))
    ]
    found = model.encode_image(odd)
    assert_features(found, 4)
    for picture, features in zip(odd, found, strict=True):
        np.testing.assert_allclose(model.encode_image(Image.fromarray(picture)), features[None], **EXACT)


@pytest.mark.parametrize("mode", ["RGBA", "P", "L", "CMYK", "I;16", "LA"])
def test_a_pillow_picture_is_read_as_the_streams_pictures_are(model, tmp_path, mode):
    """Transparency lies on white, 16-bit grey becomes 8-bit."""
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (40, 32, 4), np.uint8)
    image = Image.fromarray(values)
    if mode == "I;16":
        image = Image.fromarray(rng.integers(0, 65536, (40, 32)).astype(np.uint16))
    elif mode != "RGBA":
        image = image.convert(mode)
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    image.save(path)
    np.testing.assert_allclose(model.encode_image(image), model.encode_image(read_image(path)), **EXACT)


def test_a_pillow_picture_is_turned_upright(model, tmp_path, pictures):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(pictures[0]).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        found = model.encode_image(image)
    np.testing.assert_allclose(found, model.encode_image(np.rot90(pictures[0], -1)), **EXACT)
    np.testing.assert_allclose(model.encode_image(read_image(tmp_path / "turned.png")), found, **EXACT)  # only once


def test_a_picture_may_be_named(model, tmp_path, pictures, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    files = [tmp_path / "0.png", tmp_path / "1.png"]
    for file, picture in zip(files, pictures, strict=False):
        Image.fromarray(picture).save(file)
    expected = model.encode_image(pictures[:2])
    np.testing.assert_allclose(model.encode_image(files), expected, **EXACT)
    np.testing.assert_allclose(model.encode_image([str(files[0]), pictures[1]]), expected, **EXACT)
    np.testing.assert_allclose(model.encode_image(files[1]), expected[1:], **EXACT)
    np.testing.assert_allclose(model.encode_image("~/1.png"), expected[1:], **EXACT)


def test_a_damaged_file_is_named(model, tmp_path):
    (tmp_path / "a.png").write_bytes(b"GIF89a")
    with pytest.raises(UserError, match=r"a\.png: "):
        model.encode_image(tmp_path / "a.png")


def test_a_prepared_picture_is_encoded_as_the_picture(model, tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 47, 3), np.uint8))
    prepared = model.prepare(picture)
    assert (prepared.shape, prepared.dtype) == ((32, 32, 3), np.uint8)
    np.testing.assert_array_equal(model.encode_image(prepared), model.encode_image(picture))


def test_nothing_in_nothing_out(model):
    for found in (model.encode_image([]), model.encode_image(np.zeros((0, 8, 8, 3), np.uint8)), model.encode_text([])):
        assert found.shape == (0, 16)
        assert found.dtype == np.float32


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 8, 8, 3), np.float32), r"an image is float32 \(8, 8, 3\), expected uint8 \(height, width, 3\)"),
        (np.zeros((8, 8), np.uint8), r"an image is uint8 \(8, 8\), expected uint8"),
        (np.zeros((8, 8, 4), np.uint8), r"an image is uint8 \(8, 8, 4\), expected uint8"),
        (np.zeros((1, 0, 8, 3), np.uint8), r"an image is uint8 \(0, 8, 3\), expected uint8"),
        (np.zeros((1, 1, 8, 8, 3), np.uint8), r"an image is uint8 \(1, 1, 8, 8, 3\)"),
        ([np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8, 3), np.int64)], r"an image is int64 \(8, 8, 3\)"),
        (["nosuch.png"], "^nosuch.png: there is no such file"),
        ("gs://bucket/a.png", "an image is gs://bucket/a.png, a URL; expected a path on this machine"),
        ("a\0b", r"an image is 'a\\x00b', expected a path"),
        ([b"a.png"], r"an image is \|S5 \(\), expected uint8"),
        (7, "images is a int, expected arrays, PIL images or paths"),
        (Image.new("RGB", (0, 5)), "an image is 0 x 5 pixels, expected at least one"),
    ],
)
def test_what_is_no_picture_is_refused(model, images, message):
    with pytest.raises(UserError, match=message):
        model.encode_image(images)


@pytest.mark.parametrize(
    ("captions", "message"),
    [
        ("", "the caption '' is empty; expected at least one word"),
        (["a red circle", " \n"], r"the caption ' \\n' is empty"),
        (["...!"], "the caption '...!' is empty"),
        ([7], "a caption is a int, expected a string"),
        ([b"a red circle"], "a caption is a bytes, expected a string"),
        (7, "captions is a int, expected strings"),
        (None, "captions is a NoneType, expected strings"),
        ("a red \ud83d circle", r"the caption 'a red \\ud83d circle' holds half of a surrogate pair"),
        (["two rings", "\udcff" * 999], r"the caption '\\udcff.{70,80} holds half of a surrogate pair, expected whole"),
    ],
)
def test_what_is_no_caption_is_refused(model, captions, message):
    with pytest.raises(UserError, match=message):
        model.encode_text(captions)


# ---- opening a run ---------------------------------------------------------------------------------------------------


def change_record(directory, change):
    path = directory / "config.json"
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def test_a_folder_without_a_run_is_refused_and_stays_empty(tmp_path):
    for directory in (tmp_path, tmp_path / "nosuch"):
        with pytest.raises(UserError, match=r"config\.json cannot be read .*expected the directory of a run"):
            lpi_jax.load(directory)
    assert list(tmp_path.iterdir()) == []


def test_a_run_without_a_finished_task_is_refused(copied_run):
    shutil.rmtree(copied_run.directory / "checkpoints")
    with pytest.raises(UserError, match="has no finished task yet"):
        lpi_jax.load(copied_run.directory)


def test_a_run_trained_on_many_devices_opens_on_one(copied_run, model, pictures):
    change_record(copied_run.directory, lambda record: record["config"].update(devices=64))
    there = lpi_jax.load(str(copied_run.directory))
    np.testing.assert_array_equal(there.encode_image(pictures[:2]), model.encode_image(pictures[:2]))


def test_another_backbone_in_the_old_place_is_noticed(copied_run, tiny_clip, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(tiny_clip, other)
    config, _ = weights.load(other)
    weights.save(other, config, init_params(config, jax.random.key(1)))
    change_record(copied_run.directory, lambda record: record["config"].update(backbone=str(other)))
    with pytest.raises(UserError, match=r"is not the one that .* was trained on: its weights differ"):
        lpi_jax.load(copied_run.directory)


def test_a_run_that_measured_random_crops_still_encodes_a_picture_in_one_way(copied_run, model, pictures):
    change_record(copied_run.directory, lambda record: record["config"]["eval"].update(transform="random"))
    there = lpi_jax.load(copied_run.directory)
    np.testing.assert_array_equal(there.encode_image(pictures[:4]), model.encode_image(pictures[:4]))


def test_the_public_name_opens_a_retriever(model):
    assert lpi_jax.load is serving.load
    assert isinstance(model, Retriever)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        lpi_jax.lode  # noqa: B018


def test_a_pil_image_that_cannot_be_seen_is_a_users_mistake(model):
    deep = Image.fromarray(np.array([[0, 70_000]], np.int32))
    with pytest.raises(UserError, match=r"^an image in mode I cannot be used \(its grey reaches from 0 to 70000"):
        model.encode_image(deep)


def test_a_run_that_was_recorded_before_a_key_came_is_loaded(copied_run):
    record = copied_run.directory / "config.json"
    fields = json.loads(record.read_text(encoding="utf-8"))
    del fields["config"]["towers"], fields["config"]["matmul_precision"], fields["config"]["problem"]
    # As it was when there was one kind of method.
    method = fields["config"].pop("method")
    prompt = ("length", "rank", "layers", "depth", "injection", "interaction")
    loss = ("alignment", "alignment_weight", "task", "task_weight", "threshold", "similarity")
    fields["config"]["prompt"] = {name: method.pop(name) for name in prompt}
    fields["config"]["loss"] = {name: method.pop(name) for name in loss}
    fields["config"]["method"] = method.pop("name")
    record.write_text(json.dumps(fields), encoding="utf-8")
    assert lpi_jax.load(copied_run.directory).tasks == tuple(copied_run.results["tasks"])
