"""Instructions of one's own: what is read, what stays as it is, and what each kind of bad record says."""

import json
import pickle

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from lpi_jax.data import cache
from lpi_jax.data.examples import BadExample
from lpi_jax.data.images import BadImage
from lpi_jax.data.instructed import Instructed
from lpi_jax.data.sources.instructions import Options, instructions
from lpi_jax.errors import UserError
from tests.support.pixels import pixels, shades


def turns(*values):
    return [{"from": ("human", "gpt")[number % 2], "value": value} for number, value in enumerate(values)]


def sample(image, *values, task="toys", split="train", **more):
    shown = {} if image is None else {"image": image}
    return {
        **shown,
        "conversations": turns(*(values or ("<image>\nWhat?", "A kite"))),
        "task": task,
        "split": split,
        **more,
    }


GOOD = [
    sample("img/a.png"),
    sample("img/b.png", split="val"),
    sample("img/c.png", task="tools", description="hammers and the like"),
    sample(None, "Two and two?", "4", task="tools", split="val"),
]


@pytest.fixture
def folder(tmp_path):
    """Five sound images img/a.png ... img/e.png and a broken one."""
    (tmp_path / "img").mkdir()
    for shade, name in enumerate("abcde"):
        Image.new("RGB", (6, 4), (shade, 0, 0)).save(tmp_path / "img" / f"{name}.png")
    (tmp_path / "img/text.png").write_text("no image")
    return tmp_path


def written(folder, records, lines=False):
    text = "\n".join(map(json.dumps, records)) if lines else json.dumps(records, indent=1)
    (folder / "own.json").write_text(text)
    return folder / "own.json"


def made(folder, records, lines=False, **options):
    return instructions(Options(path=str(written(folder, records, lines)), **options))


def only(folder, *values, **more):
    """The first training record of a stream with this record in it."""
    return made(folder, [sample("img/a.png", *values, **more), *GOOD[1:]]).tasks[0].train.records[0]


@pytest.mark.parametrize("lines", [False, True])
def test_tasks_splits_turns_answers_and_images(folder, lines):
    stream = made(folder, GOOD, lines)
    toys, tools = stream.tasks
    assert [(task.name, task.description) for task in stream.tasks] == [
        ("toys", "toys"),
        ("tools", "hammers and the like"),
    ]
    (first,) = toys.train.records
    assert first == Instructed(first.key, (("What?", "A kite"),), ("A kite",))
    assert shades(toys.train) == [0] and shades(toys.val) == [1] and shades(tools.train) == [2]
    assert stream.notes["images"] == 4 and stream.skipped == {}


def test_a_sample_without_an_image_is_text_only_and_black(folder):
    for record in (GOOD[3], {**GOOD[3], "image": None}):
        split = made(folder, [*GOOD[:3], record]).tasks[1].val
        assert not split.records[0].has_image
        assert split.load(0).mode == "RGB" and not pixels(split.load(0)).any()


def test_images_are_shared_by_samples_tasks_and_splits(folder):
    places = [(task, split) for task in ("toys", "tools") for split in ("train", "val")]
    again = [sample("img/a.png", "<image>\nAgain?", "Yes", task=task, split=split) for task, split in places]
    stream = made(folder, [*GOOD, *again])
    assert shades(stream.tasks[0].train) == [0, 0] and shades(stream.tasks[1].val)[1] == 0


def test_images_are_read_when_they_are_asked_for_and_loaders_cross_process_borders(folder):
    load = pickle.loads(pickle.dumps(made(folder, GOOD).tasks[0].train.load))
    Image.new("RGB", (6, 4), (99, 0, 0)).save(folder / "img/a.png")
    assert pixels(load(0))[0, 0, 0] == 99


def test_a_stream_of_instructions_can_be_cached(folder, tmp_path):
    kept = cache.cached(made(folder, GOOD), tmp_path / "cache", 4)
    assert shades(kept.tasks[0].train) == [0] and not pixels(kept.tasks[1].val.load(0)).any()


@pytest.mark.parametrize(
    ("first", "question"),
    [
        ("<image>\nWhat?", "What?"),
        ("What?\n<image>", "What?"),
        ("  <image>What?\n", "What?"),
        ("What?", "What?"),
        ("<image>\nWhat?\nIn one word.", "What?\nIn one word."),
        ("<image>\nSay ASSISTANT: no ASSISTANT", "Say ASSISTANT: no ASSISTANT"),
        ("<image>\n" + "word " * 4000 + "?", "word " * 4000 + "?"),
    ],
)
def test_questions_lose_the_mark_and_stay_as_they_are(folder, first, question):
    assert only(folder, first, "It is.").turns == ((question, "It is."),)


def test_text_only_questions_and_later_turns_keep_their_white_space(folder):
    assert only(folder, "<image> Q ", " A ", " R ", " B ").turns == (("Q", " A "), (" R ", " B "))
    record = made(folder, [*GOOD, sample(None, " Q\n", "A")]).tasks[0].train.records[1]
    assert record.turns == ((" Q\n", "A"),)


def test_what_is_right_is_the_last_answer_or_what_the_record_says(folder):
    def right(*values, **more):
        return made(folder, [*GOOD, sample("img/a.png", *values, split="val", **more)]).tasks[0].val.records[1]

    assert right("Q", "A", "R", "B").answers == ("B",)
    assert right("Q", "A", answer="C").answers == ("C",)
    closed = right("Q", "A", "R", answers=["B", "C", "B"], scoring="vqav2")
    assert (closed.turns, closed.answers, closed.scoring) == ((("Q", "A"), ("R", "B")), ("B", "C", "B"), "vqav2")
    assert right("Q", answers=["B", "C", "B"], answer="C").answers == ("C", "B", "B")
    boxed = right("Q", answer="[0, 0, 1, 0.5]", answer_bbox="[0,0,1,0.5]", size=[640, 480], scoring="grounding")
    assert boxed.annotation == {"box": (0, 0, 1, 0.5), "size": (640, 480)}


def test_ids_name_samples(folder):
    stream = made(folder, [sample("img/a.png", id="x"), sample("img/a.png", id=7), *GOOD])
    assert stream.tasks[0].train.keys[:2] == ("x", "7") and len(set(stream.tasks[0].train.keys)) == 3


BAD = [
    ("several images", sample(["img/a.png", "img/b.png"]), "image is a list of 2; expected one path"),
    ("several images", sample("img/a.png", "<image><image>", "A"), "the record holds 2 times <image>"),
    ("several images", sample("img/a.png", "<image>Q", "A", "<image>R", "B"), "the record holds 2 times <image>"),
    ("missing image", sample(None, "<image>\nQ", "A"), "a question holds <image>, but the record names no image"),
    ("image not in the first turn", sample("img/a.png", "Q", "A", "<image>R", "B"), "stands in a later question"),
    ("image not in the first turn", sample("img/a.png", "Q", "<image>"), "conversations[1], an answer, holds <image>"),
    ("empty answer", sample("img/a.png", "Q", " \n"), "conversations[1] has nothing in it"),
    ("empty question", sample("img/a.png", "<image>\n", "A"), "conversations[0] has nothing in it"),
    ("no answer", sample("img/a.png", "Q", "A", "R"), "has 3 turns and ends with a question"),
    ("no conversation", {**GOOD[0], "conversations": []}, "conversations is empty"),
    ("no conversation", {**GOOD[0], "conversations": "Q"}, "conversations is a string"),
    ("no conversation", {"image": "img/a.png", "task": "toys", "split": "train"}, "conversations is missing"),
    ("unknown role", {**GOOD[0], "conversations": [{"from": "system", "value": "Q"}]}, "is from 'system'; expected"),
    ("roles out of turn", {**GOOD[0], "conversations": turns("Q", "A")[::-1]}, "is from 'gpt'; expected 'human'"),
    ("wrong type", {**GOOD[0], "conversations": ["Q", "A"]}, "conversations[0] is a string; expected an object"),
    ("wrong type", sample("img/a.png", "Q", 4), "value of conversations[1] is a number; expected a string"),
    ("wrong type", sample("img/a.png", "Q", None), "value of conversations[1] is null"),
    ("wrong type", sample(7), "image is 7; expected a string"),
    ("wrong type", sample(" "), "image is ' '"),
    ("wrong type", sample("img/a.png", task=3), "task is 3"),
    ("wrong type", sample("img/a.png", id=[1]), "id is a list"),
    ("wrong type", sample("img/a.png", answers="A"), "answers is a string; expected a list"),
    ("wrong type", sample("img/a.png", answers=[4]), "answers holds a number"),
    ("wrong type", sample("img/a.png", size=[0, 2]), "size is [0, 2]; expected [width, height]"),
    ("empty answer", sample("img/a.png", answer=" "), "answer holds ' '"),
    ("no such answer", sample("img/a.png", answer="A", answers=["B"]), "answer is 'A', which is none of answers"),
    ("unknown scoring", sample("img/a.png", scoring="vqa"), "scoring is 'vqa'; expected one of exact, choice"),
    ("unknown split", sample("img/a.png", split="test"), "split is 'test'; expected 'train' or 'val'"),
    ("missing key", {key: value for key, value in GOOD[0].items() if key != "split"}, "key 'split' is missing"),
    ("missing key", sample("img/a.png", split="val", scoring="grounding"), "key 'answer_bbox' is missing"),
    ("bad box", sample("img/a.png", answer_bbox="[0,0,1]"), "answer_bbox is '[0,0,1]'; expected four numbers"),
    ("bad box", sample("img/a.png", answer_bbox="[0,0,1,nan]"), "expected four numbers"),
    ("NUL character", sample("img/a.png", "Q\0", "A"), "holds a NUL character"),
    ("not UTF-8", sample("img/a.png", "Q", "\ud800"), "half of a surrogate pair"),
    ("repeated id", sample("img/a.png", id="twice"), "id 'twice' stands already in record 1"),
    ("not JSON", sample("img/a.png", score=float("nan")), "this holds NaN, which is no JSON"),
    ("not an object", ["Q", "A"], "this is a list; expected an object"),
    ("missing file", sample("img/no.png"), "there is no such file"),
    ("unreadable image", sample("img/text.png"), "this is not an image in a known format"),
]


@pytest.mark.parametrize(("kind", "bad", "message"), BAD, ids=[f"{number} {bad[0]}" for number, bad in enumerate(BAD)])
@pytest.mark.parametrize("lines", [False, True])
def test_each_kind_of_bad_record_is_one_sentence_or_a_count(folder, kind, bad, message, lines):
    records = [sample("img/a.png", id="twice"), *GOOD[1:], bad]
    place = f"own.json, {'line' if lines else 'record'} 5: "
    with pytest.raises(UserError) as raised:
        made(folder, records, lines)
    told = str(raised.value).replace("line 1", "record 1")
    assert place in str(raised.value) and message in told and "\n" not in told
    stream = made(folder, records, lines, on_bad_example="skip")
    assert stream.skipped == {kind: 1} and stream.notes["images"] == 4
    assert place in stream.refused.first[0]


def test_a_bad_image_is_counted_for_each_of_its_samples_and_looked_at_once(folder):
    bad = [sample("img/text.png", "Q", "A"), sample("img/text.png", "R", "B", task="tools", split="val")]
    with pytest.raises(BadImage, match="record 5: "):
        made(folder, [*GOOD, *bad])
    stream = made(folder, [*GOOD, *bad], on_bad_example="skip")
    assert {task: dict(kinds) for task, kinds in stream.refused.counts.items()} == {
        "toys": {"unreadable image": 1},
        "tools": {"unreadable image": 1},
    }
    assert "record 5: " in stream.refused.first[0] and "record 6: " in stream.refused.first[1]


def test_broken_json_names_the_position_even_when_skipping(folder):
    path = written(folder, GOOD)
    path.write_text(path.read_text().replace('"split": "val"', '"split" "val"', 1))
    for mode in ("error", "skip"):
        with pytest.raises(UserError, match=r"own\.json, line 30, column 11: this is not JSON") as raised:
            instructions(Options(path=str(path), on_bad_example=mode))
        assert not isinstance(raised.value, BadExample)


def test_a_task_without_a_split_is_an_error(folder):
    with pytest.raises(UserError, match="task 'toys' has no val samples; expected at least one"):
        made(folder, [GOOD[0], *GOOD[2:]])


def test_fingerprint_follows_the_file_and_the_images(folder):
    first = made(folder, GOOD).fingerprint
    assert made(folder, GOOD).fingerprint == first and made(folder, GOOD[::-1]).fingerprint != first
    Image.new("RGB", (60, 4)).save(folder / "img/a.png")
    assert made(folder, GOOD).fingerprint != first


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5) | st.just("<image>"),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from([*GOOD[0], "from", "value", "answer", "answers", "size"]), inner, max_size=5
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_at_all_ends_in_a_user_error_or_is_skipped(folder, value):
    try:
        stream = made(folder, [*GOOD, value], on_bad_example="skip")
    except UserError as error:
        assert "samples" in str(error) or "has no description" in str(error)
    else:
        assert stream.skipped and stream.notes["images"] == len(GOOD)
