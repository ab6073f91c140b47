"""Search: the folder's best images as the model ranks them, whatever else lies in the folder."""

import os
import shutil
from collections import Counter

import numpy as np
import pytest
from PIL import Image

import lpi_jax
from lpi_jax.data.contact_sheet import SIDE
from lpi_jax.experiment.experiment import stream_of
from lpi_jax.problems.retrieval.score import ASTRAY, SMOOTHING
from lpi_jax.run import continual
from lpi_jax.serving import search
from tests.reference import scores as reference

FORMATS = ("png", "JPG", "webp", "gif", "bmp", "tiff")


@pytest.fixture(scope="module")
def folder(finished_run, tmp_path_factory):
    """Twelve drawings in six formats, two of them in a folder below, and other things a folder holds. Read only."""
    folder = tmp_path_factory.mktemp("holiday")
    (folder / "below").mkdir()
    for task in stream_of(finished_run.config, 32).tasks[:2]:
        for number, ending in enumerate(FORMATS):
            place = folder / "below" if number == 0 else folder
            task.val.load(number).save(place / f"{task.name}-{number}.{ending}", quality=95)
    (folder / "broken.jpg").write_bytes(b"\xff\xd8 not much more")
    (folder / "red\x1b[31m.png").write_bytes(b"")
    (folder / "notes.txt").write_text("a red circle")
    (folder / ".hidden.png").write_bytes(b"")
    (folder / ".trash").mkdir()
    shutil.copy(folder / "comic-1.JPG", folder / ".trash" / "old.jpg")
    return folder


@pytest.fixture(scope="module")
def expected(finished_run, folder):
    """(query features) -> (path, score) of all sound images by a plain sort."""
    model = lpi_jax.load(finished_run.directory)
    files = list(folder.rglob("*-*.*"))
    features = [model.encode_image(file)[0] for file in files]

    def rank(query):
        return sorted(((str(file), float(one @ query)) for file, one in zip(files, features, strict=True)), key=_worst)

    return model, rank


def _worst(item):
    return -item[1], item[0]


@pytest.fixture
def run(finished_run, folder, tmp_path, monkeypatch, capfd):
    """(arguments) -> status, [(score, path)], stderr; the run, the folder and the current folder are given."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, images=folder, of=finished_run.directory):
        status = search.main(["search", str(of), f"--images={images}", *map(str, arguments)])
        out, err = capfd.readouterr()
        return status, [tuple(line.split(maxsplit=1)) for line in out.splitlines()], err

    return run


def assert_ranked(lines, best):
    assert [path for _, path in lines] == [path for path, _ in best]
    np.testing.assert_allclose([float(score) for score, _ in lines], [score for _, score in best], atol=6e-4)


def test_the_best_images_for_a_text_are_those_of_the_model(run, expected, tmp_path):
    model, rank = expected
    status, lines, err = run("--text=a red circle above a blue square")
    assert status == 0
    assert_ranked(lines, rank(model.encode_text("a red circle above a blue square")[0])[:10])
    assert err.startswith("left out: 2 unreadable image; the first: ")
    assert err.endswith("Contact sheet: search.png\n") and "\x1b" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["search.png"]


def test_an_image_is_most_like_itself(run, expected, folder, tmp_path):
    model, rank = expected
    image = folder / "comic-1.JPG"
    status, lines, _ = run("--like", image, "--top=3", "--out", "like.PNG")
    assert status == 0
    assert lines[0] == ("1.000", str(image))
    assert_ranked(lines, rank(model.encode_image(image)[0])[:3])
    assert [path.name for path in tmp_path.iterdir()] == ["like.PNG"]


PARTS = "prompted+plain+prior"


@pytest.fixture(scope="module")
def scored_run(finished_run, make_config, tmp_path_factory):
    """The directory of a run of the same prompts whose score has plain features and a prior of tasks."""
    directory = tmp_path_factory.mktemp("scored") / "run"
    changes = {"routing.rule": "lda", "eval.score": PARTS, "reuse": str(finished_run.directory)}
    continual.run(make_config(changes), directory)
    return directory


@pytest.mark.parametrize("kind", ["text", "like"])
def test_a_run_that_scores_with_a_prior_finds_what_the_formula_puts_first(run, scored_run, expected, folder, kind):
    model, files = lpi_jax.load(scored_run), list(folder.rglob("*-*.*"))
    asked = {"text": "a red circle above a blue square", "like": folder / "comic-1.JPG"}[kind]

    def unsmoothed(posterior):
        """The posteriors that the model's own smoothing was applied to."""
        posterior = (posterior - SMOOTHING / posterior.shape[1]) / (1 - SMOOTHING)
        none = posterior[:, -1:] / (1 - ASTRAY)
        return np.concatenate([posterior[:, :-1] - ASTRAY * none / len(model.tasks), none], axis=1)

    def parts(index, what):
        """Features, plain features and posteriors, each from the model by itself."""
        return [
            *(index(what, name).features for name in ("prompted", "plain")),
            unsmoothed(index(what, "plain+prior").posterior),
        ]

    query = parts(model.index_texts if kind == "text" else model.index_images, asked)
    scale = model._encoder.logit_scale
    scores = reference.matrix(query, parts(model.index_images, files), PARTS.split("+"), SMOOTHING, scale)[0]
    best = sorted(((str(file), score) for file, score in zip(files, scores, strict=True)), key=_worst)
    status, lines, err = run(f"--{kind}={asked}", "--top=99", of=scored_run)
    assert status == 0
    assert_ranked(lines, best)
    assert err.endswith("Contact sheet: search.png\n")
    if kind == "like":
        assert lines[0][1] == str(asked)
    else:  # the prior and the plain features decide something
        assert [path for path, _ in best] != [path for path, _ in expected[1](expected[0].encode_text(asked)[0])]


def test_the_contact_sheet_shows_the_best_in_their_order(tmp_path):
    files = []
    for number in range(3):
        files.append(tmp_path / f"{number}.png")
        Image.new("RGB", (40, 40), (number, 200, 50)).save(files[-1])
    best = [(0.9, str(files[2])), (0.8, str(files[0])), (0.7, str(tmp_path / "gone.png")), (0.6, str(files[1]))]
    (tmp_path / "sheet.png").write_bytes(search.sheet("text: x", "the best", best, tmp_path))
    shown = np.asarray(Image.open(tmp_path / "sheet.png"))
    counts = Counter(tuple(pixel) for row in shown for pixel in row.tolist())
    assert [counts[number, 200, 50] for number in range(3)] == [SIDE * SIDE] * 3
    left = [np.argwhere((shown == (number, 200, 50)).all(-1))[:, 1].min() for number in (2, 0, 1)]
    assert left[0] < left[1] < left[2] - SIDE  # between the last two stands the one that is gone


def test_a_folder_of_more_images_than_are_encoded_together(run, expected, monkeypatch):
    model, rank = expected
    monkeypatch.setattr(search, "_TOGETHER", 5)
    status, lines, _ = run("--text=two rings", "--top=99")
    assert status == 0
    assert_ranked(lines, rank(model.encode_text("two rings")[0]))


def test_the_sheet_of_the_last_search_is_no_image_to_be_found(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "all", ignore=lambda _, names: [name for name in names if "\x1b" in name])
    out = tmp_path / "all" / "search.png"
    before = search.files_in(tmp_path / "all", out)
    shutil.copy(tmp_path / "all" / "comic-1.JPG", out)
    assert search.files_in(tmp_path / "all", out) == before
    assert len(before) == 13  # twelve drawings and a broken one; nothing hidden, no text


def test_folders_that_lead_in_a_circle_are_walked_once(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "all")
    before = search.files_in(tmp_path / "all", tmp_path / "out.png")
    os.symlink(tmp_path / "all", tmp_path / "all" / "below" / "again")
    assert search.files_in(tmp_path / "all", tmp_path / "out.png") == before


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--text=a", "--like=b.png"], "argument --like: not allowed with argument --text; --help explains"),
        ([], "one of the arguments --text --like is required; --help explains the command line"),
        (["--text=a", "--top=0"], "--top is 0, expected at least 1"),
        (["--text=a", "--top=few"], "argument --top: invalid int value: 'few'; --help explains"),
        (["--text=a", "--tops=3"], "unrecognized arguments: --tops=3; --help explains"),
        (
            ["--text=a", "--out=photo.jpg"],
            "--out is photo.jpg, expected the name of a PNG file (.png) in a folder that",
        ),
        (["--text=a", "--out=no/such.png"], "--out is no/such.png, expected the name of a PNG file"),
        (["--text=a", "--images=nosuch"], "--images is nosuch, expected a folder of images"),
        (["--text=a", "--images=."], "--images is ., which holds no image; expected files that end in .avif, .bmp"),
        (["--text=..."], "the caption '...' is empty; expected at least one word"),
        (["--text=a \udcff b"], "the caption 'a \\udcff b' holds half of a surrogate pair"),
        (["--like=nosuch.png"], "nosuch.png: there is no such file"),
        (["--like=gs://b/a.png"], "an image is gs://b/a.png, a URL; expected a path on this machine"),
    ],
)
def test_a_mistake_is_one_sentence(run, tmp_path, arguments, sentence):
    status, lines, err = run(*arguments)
    assert (status, lines) == (2, [])
    assert err.startswith(f"error: {sentence}") and err.count("\n") == 1
    assert not [*tmp_path.iterdir()]


def test_a_folder_of_damaged_images_is_one_sentence(run, tmp_path):
    (tmp_path / "bad").mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / "bad" / name).write_bytes(b"nothing")
    status, lines, err = run("--text=a", images=tmp_path / "bad")
    assert (status, lines) == (2, [])
    assert err.startswith(f"error: not one of 2 images can be read; the first: {tmp_path}/bad/a.png: ")
    assert not (tmp_path / "search.png").exists()


def test_a_folder_without_a_run_is_one_sentence(folder, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert search.main(["search", "nosuch", f"--images={folder}", "--text=a"]) == 2
    assert capfd.readouterr().err.startswith("error: nosuch/config.json cannot be read")


def test_help_explains_the_command(capfd):
    with pytest.raises(SystemExit) as ended:
        search.main(["search", "--help"])
    assert not ended.value.code
    out, err = capfd.readouterr()
    assert err == ""
    for word in ("RUN", "--images FOLDER", "--text TEXT", "--like IMAGE", "--top N", "--out FILE", "search.png"):
        assert word in out


def test_a_sheet_that_cannot_be_written_does_not_cost_the_answer(run, folder, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(search, "write_atomically", fail)
    status, lines, err = run("--text=two rings")
    assert (status, len(lines)) == (2, 10)
    assert err.endswith("error: --out is search.png, which cannot be written: No space left on device\n")
