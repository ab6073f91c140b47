"""The promises of the embedded instruction stream; what is asked is judged from the pictures by code of its own."""

import pickle
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from lpi_jax.data.questions.asked import Scene
from lpi_jax.data.questions.drawn import PIXELS, PLACES, Origin
from lpi_jax.data.questions.general import general
from lpi_jax.data.questions.general_forms import Said, drawn, finished
from lpi_jax.data.questions.picture import Picture, Thing, written
from lpi_jax.data.questions.source import EVERY, NAMES, Options, build
from lpi_jax.data.questions.table import FAMILIES
from lpi_jax.data.scenes.domain import GENERAL
from lpi_jax.data.scenes.domains import DEVELOPMENT_DOMAINS
from lpi_jax.data.scenes.drawing import draw
from lpi_jax.data.scenes.wording import Item
from lpi_jax.errors import UserError
from lpi_jax.models.tokenizer import Tokenizer
from lpi_jax.problems.instruction.boxes import clean_parse, iou
from lpi_jax.problems.instruction.scoring import scores
from tests.support.pixels import pixels

TRAIN, VAL = 400, 200
CLIP = Path(__file__).parents[2] / "lpi_jax" / "assets" / "tiny_clip"
UNSEEN = ("count", "colour", "relation", "larger")
WAY = {"north": (0, -1), "east": (1, 0), "south": (0, 1), "west": (-1, 0)}
GOLDEN_ROUNDS = (  # of seed 0: each task's first validation image, what is asked about it and answered
    "Count what is printed in green. 2",
    "Herald, which tincture on the left? yellow",
    "Which heading leads from the green to the yellow marker? north",
    "Does the lantern show orange? yes",
    "Of purple and black in the sand, which is the bigger? black",
    "Locate part: orange. [0.45, 0.55, 0.85, 0.95]",
    "What kind of place is this from? mill",
    "Pow! Your line for this panel? a yellow one right of a pink one!",
)
GOLDEN_MEANS = (178.9, 209.8, 190.9, 82.1, 184.8, 202.7, 177.6, 217.4)  # of the images
HUNDRED = {  # of val, at most, in percent: the best constant answer, the best guess that knows the question
    "count": (25, 32), "colour": (20, 30), "relation": (25, 32), "presence": (50, 58), "larger": (17, 58),
    "grounding": (15, 15), "place": (20, 28), "caption": (4, 2),
}  # fmt: skip


@pytest.fixture(scope="module")
def stream():
    return build(Options(seed=3, train=TRAIN, val=VAL, image_size=60))


def task(stream, name):
    return next(task for task in stream.tasks if task.name == name)


def everything(stream):
    for one in stream.tasks:
        yield from one.train.records
        yield from one.val.records


def shown(record):
    return [(t.item.colour, t.item.shape, t.x, t.y, t.radius) for t in record.annotation["things"]]


def arrangement(record):
    return tuple(sorted(thing[:4] for thing in shown(record)))


def question(record):
    return record.turns[0][0]


# ---- what it promises of itself --------------------------------------------------------------------------------------


def test_the_tasks_are_the_eight_and_hold_as_many_samples_as_asked_for(stream):
    assert [one.name for one in stream.tasks] == list(NAMES)
    assert {(len(one.train), len(one.val)) for one in stream.tasks} == {(TRAIN, VAL)}
    keys = [record.key for record in everything(stream)]
    assert len(set(keys)) == len(keys)
    assert all(record.answers[0] == record.turns[0][1] and len(record.turns) == 1 for record in everything(stream))


def test_a_sample_follows_from_seed_task_split_and_index_alone(stream):
    alone = build(Options(tasks=("place", "count"), seed=3, train=30, val=20, image_size=60))
    assert [one.name for one in alone.tasks] == ["place", "count"]
    for one in alone.tasks:
        long = task(stream, one.name)
        assert one.train.records == long.train.records[:30]
        assert one.val.records == long.val.records[:20]
        again = pickle.loads(pickle.dumps(one.val.load))
        for index in (0, 7, 19):
            np.testing.assert_array_equal(pixels(again(index)), pixels(long.val.load(index)))
    other = build(Options(tasks=("place",), seed=4, train=30, val=20))
    assert other.tasks[0].train.records != alone.tasks[0].train.records
    assert other.fingerprint != alone.fingerprint


def test_pictures_and_words_stay_as_they_are():
    splits = [one.val for one in build(Options(seed=0, train=1, val=6, image_size=60)).tasks]
    firsts = [next(k for k, record in enumerate(split.records) if record.has_image) for split in splits]
    said = [split.records[k].turns[0] for split, k in zip(splits, firsts, strict=True)]
    assert tuple(f"{asked.splitlines()[0]} {answer}" for asked, answer in said) == GOLDEN_ROUNDS
    means = [float(pixels(split.load(k)).mean()) for split, k in zip(splits, firsts, strict=True)]
    np.testing.assert_allclose(means, GOLDEN_MEANS, atol=0.1)


def test_no_picture_and_no_question_without_one_is_both_learnt_and_measured(stream):
    learnt, measured = (
        [record for one in stream.tasks for record in getattr(one, split).records] for split in ("train", "val")
    )
    learnt += general(5, 1500).records
    places = [{arrangement(r) for r in records if r.has_image} for records in (learnt, measured)]
    assert not places[0] & places[1]
    said = [{question(r) for r in records if not r.has_image} for records in (learnt, measured)]
    assert said[1] and not said[0] & said[1]
    for one in stream.tasks:
        images = [
            {pixels(split.load(i)).tobytes() for i in range(60) if split.records[i].has_image}
            for split in (one.train, one.val)
        ]
        assert len(images[0]) == sum(r.has_image for r in one.train.records[:60])
        assert not images[0] & images[1]


def test_one_sample_in_five_of_four_tasks_has_no_image_and_is_black(stream):
    for one in stream.tasks:
        for split in (one.train, one.val):
            without = [k for k, record in enumerate(split.records) if not record.has_image]
            assert len(without) == (len(split) // EVERY if one.name in UNSEEN else 0)
            assert all(split.records[k].annotation is None for k in without)
            assert not without or not pixels(split.load(without[0])).any()


def test_tasks_share_neither_look_nor_wording_and_general_samples_neither():
    families = FAMILIES.values()
    looks = [name for family in families for name in family.domains.values()]
    assert len(set(looks)) == len(looks) and not set(looks) & {*DEVELOPMENT_DOMAINS, "general"}
    words = [text for family in families for text in (*family.templates, family.suffix)]
    assert len(set(words)) == len(words)
    general_said = {q for record in general(6, 2000).records for q, _ in record.turns}
    frames = [re.compile("[a-z ]+".join(map(re.escape, re.split(r"{\w+}", text)))) for text in words]
    assert not [said for said in general_said for frame in frames if frame.search(said)]


def test_clip_reads_whole_questions(stream):
    _, cut = Tokenizer.load(CLIP).encode([question(record) for record in everything(stream)])
    assert cut == 0


# ---- answers are right -----------------------------------------------------------------------------------------------


EDGE = {"on the left": (0, min), "on the right": (0, max), "at the top": (1, min), "at the bottom": (1, max)}


def named(record, colours):
    """The colours that a question names, in its order."""
    return re.findall(rf"\b({'|'.join(colours)})\b", question(record))


def judge(record, name):
    """What is right, from the picture and the question's words."""
    things = shown(record)
    by_colour = {colour: (x, y, radius) for colour, _, x, y, radius in things}
    if name == "colour":
        axis, outermost = next(EDGE[edge] for edge in EDGE if edge in question(record))
        return outermost(by_colour, key=lambda colour: by_colour[colour][axis])
    names = named(record, FAMILIES[name].domain("").colours)
    if name == "count":
        return str(sum(colour == names[0] for colour, *_ in things))
    if name == "presence":
        return "yes" if names[0] in by_colour else "no"
    if name == "larger":
        return max(names, key=lambda colour: by_colour[colour][2])
    a, b = names
    if not question(record).startswith("Pilot"):
        a, b = b, a  # from the b to the a
    dx, dy = by_colour[a][0] - by_colour[b][0], by_colour[a][1] - by_colour[b][1]
    return max(WAY, key=lambda way: WAY[way][0] * dx + WAY[way][1] * dy)


@pytest.mark.parametrize("name", ["count", "colour", "relation", "presence", "larger"])
def test_answers_are_what_the_picture_shows(stream, name):
    records = [r for split in (task(stream, name).train, task(stream, name).val) for r in split.records if r.has_image]
    assert [judge(record, name) for record in records] == [record.answers[0] for record in records]


def test_a_place_is_told_by_its_look_alone(stream):
    split = task(stream, "place").val
    domains = {record.answers[0]: FAMILIES["place"].domains[record.answers[0]] for record in split.records}
    assert domains == dict(FAMILIES["place"].domains)
    looks = {r.answers[0]: pixels(split.load(i)).mean((0, 1)) for i, r in enumerate(split.records)}
    assert len({tuple(look.round().tolist()) for look in looks.values()}) == len(domains)


def test_captions_name_both_things_and_where_they_are(stream):
    told = {"left of": (-1, 0), "right of": (1, 0), "over": (0, -1), "under": (0, 1)}
    for record in task(stream, "caption").val.records:
        at = {colour: np.asarray([x, y]) for colour, _, x, y, _ in shown(record)}
        assert len(record.answers) == 2 and record.scoring == "caption"
        for answer in record.answers:
            a, relation, b = re.fullmatch(rf"an? (.+) one ({'|'.join(told)}) an? (.+) one!", answer).groups()
            away = at[a] - at[b]
            assert np.sign(away[np.abs(away).argmax()]) == sum(told[relation])
            assert np.abs(away).argmax() == np.abs(told[relation]).argmax()


def test_a_box_is_where_the_pixels_of_its_thing_are(stream):
    split, domain = task(stream, "grounding").val, FAMILIES["grounding"].domain("")
    for index in range(25):
        record = split.records[index]
        picture = Picture(record.annotation["things"], domain.looks[0], domain.strength)
        assert named(record, domain.colours) == [picture.things[0].item.colour]
        origin, size = Origin("grounding", "val", 3), 320
        first = picture.placed(origin.rng(PLACES, index))[:1]
        with_it, without = (
            pixels(draw(things, picture.look, picture.strength, origin.rng(PIXELS, index), size)).astype(int)
            for things in (first, ())
        )
        rows, columns = np.nonzero(np.abs(with_it - without).max(-1) > 60)
        seen = [columns.min() / size, rows.min() / size, (columns.max() + 1) / size, (rows.max() + 1) / size]
        np.testing.assert_allclose(record.annotation["box"], seen, atol=0.025)
        assert record.answers[0] == written(record.annotation["box"])
        assert re.fullmatch(r"\[(\d\.\d[05], ){3}\d\.\d[05]\]", record.answers[0])


def test_written_boxes_are_near_enough_to_count_as_found(stream):
    records = [r for split in (task(stream, "grounding").train, task(stream, "grounding").val) for r in split.records]
    overlap = [iou(clean_parse(record.answers[0]), record.annotation["box"]) for record in records]
    assert min(overlap) > 0.6
    for way in ("released", "official"):
        assert np.mean(scores([record.answers[0] for record in records], records, way)) == 1


SUM = re.compile(r"(\w+) (plus|minus) (\w+)")
NUMBERS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TURN = {"right": 1, "left": -1, "round": 2}


def test_questions_without_an_image_are_answered_rightly(stream):
    for record in everything(stream):
        if record.has_image:
            continue
        text, answer = question(record).split("\n")[0].lower(), record.answers[0]
        if found := SUM.search(text):
            a, b = NUMBERS.index(found[1]), NUMBERS.index(found[3])
            assert answer == str(a + b if found[2] == "plus" else a - b)
        elif way := re.search("|".join(WAY), text):
            turn = re.search("turn (\\w+)", text)[1]
            assert answer == list(WAY)[(list(WAY).index(way[0]) + TURN[turn]) % 4]
        elif "bigger" in text:
            order = ["ant", "mouse", "cat", "goat", "horse", "elephant", "house", "mountain"]
            pair = [word for word in re.findall(r"\w+", text) if word in order]
            assert len(pair) == 2 and answer == max(pair, key=order.index)
        else:
            assert answer in FAMILIES["colour"].turns and "tincture" in text


# ---- guessing does not pay -------------------------------------------------------------------------------------------


def best_constant(split):
    """The share of a split that the one best answer gets right."""
    answers = dict.fromkeys(record.answers[0] for record in split.records)
    return max(rate(split, [answer] * len(split)) for answer in answers)


def rate(split, answers):
    if split.records[0].scoring == "caption":
        return float(np.mean([a in r.answers for a, r in zip(answers, split.records, strict=True)]))
    return float(np.mean(scores(answers, split.records, "official")))


def best_guess(one):
    """The share of the validation images that is right if each question gets its commonest answer of training.

    A question whose words never came in training gets the commonest answer of all. Text-only samples are left out, as
    their words alone do tell the answer.
    """
    by_question, overall = {}, Counter()
    for record in one.train.records:
        if record.has_image:
            by_question.setdefault(question(record), Counter())[record.answers[0]] += 1
            overall[record.answers[0]] += 1
    records = [record for record in one.val.records if record.has_image]
    guesses = [by_question.get(question(record), overall).most_common(1)[0][0] for record in records]
    split = type(one.val)(tuple(records), one.val.load)
    return rate(split, guesses)


@pytest.mark.parametrize("name", NAMES)
def test_guessing_scores_low(stream, name):
    one = task(stream, name)
    constant, guess = 100 * best_constant(one.val), 100 * best_guess(one)
    print(f"{name}: best constant {constant:.1f}, best guess from the question {guess:.1f} percent")
    limits = HUNDRED[name]
    assert constant <= limits[0] and guess <= limits[1]


# ---- what general samples promise ------------------------------------------------------------------------------------


def test_general_samples_follow_from_seed_and_index_and_teach_every_skill():
    split = general(7, 300, 60)
    assert split.records[:50] == general(7, 50, 60).records
    assert split.records != general(8, 300, 60).records
    np.testing.assert_array_equal(pixels(split.load(4)), pixels(general(7, 5, 60).load(4)))
    said = " ".join(q + " " + a for record in split.records for q, a in record.turns)
    for word in ("How many", "colour", "box", "left", "above", "yes", "no", "Describe", "larger", "plus", "three"):
        assert word in said
    assert any(len(record.turns) == 2 for record in split.records)
    assert 0.05 < np.mean([not record.has_image for record in split.records]) < 0.2


PLACES_SAID = {  # axis, sign
    "left": (0, -1), "right": (0, 1), "above": (1, -1), "below": (1, 1), "over": (1, -1), "under": (1, 1),
    "west": (0, -1), "east": (0, 1), "north": (1, -1), "south": (1, 1),
}  # fmt: skip
YES = {"yes": True, "true": True, "no": False, "false": False}
FIGURE = re.compile(r"\[(.+)\]")


def judged(asked, answer, things, boxes):
    """What a question of general samples is about, and whether the answer is right; "": it is not judged here."""
    names = re.findall(rf"\b({'|'.join(GENERAL.colours)})\b", asked.lower())
    at = {thing.item.colour: (thing.x, thing.y) for thing in things}
    lower, bare = asked.lower(), re.sub("^the (.+) one$", r"\1", answer)
    told = re.findall(rf"\b({'|'.join(PLACES_SAID)})\b", answer)
    if found := FIGURE.search(asked):
        wanted = [float(edge) for edge in found[1].split(",")]
        apart = {colour: np.abs(np.subtract(box, wanted)).max() for colour, box in boxes.items()}
        return "region", apart[bare] < 0.04 and min(apart, key=apart.__getitem__) == bare
    if edge := next((edge for edge in EDGE if edge in asked), None):
        axis, outermost = EDGE[edge]
        return "edge", bare == outermost(at, key=lambda colour: at[colour][axis])
    if answer in YES and len(names) == 1:
        return "presence", YES[answer] == (names[0] in at)
    if answer in YES:
        axis, sign = PLACES_SAID[re.search("left|right|above|below", lower)[0]]
        return "relation", YES[answer] == (sign * (at[names[0]][axis] - at[names[1]][axis]) > 0)
    if found := re.search("larger|bigger|greater|smaller", lower):
        radius = {thing.item.colour: thing.radius for thing in things if thing.item.colour in names}
        return "size", bare == (min if found[0] == "smaller" else max)(radius, key=radius.__getitem__)
    if answer in NUMBERS or answer.isdigit():
        count = sum(not names or thing.item.colour == names[0] for thing in things)
        return "number", answer in (NUMBERS[count], str(count))
    if answer in PLACES_SAID:
        axis, sign = PLACES_SAID[answer]
        first, second = names if not re.search(f"(from|at|to)( the)? {names[0]}", lower) else names[::-1]
        return "side", sign * (at[first][axis] - at[second][axis]) > 0
    if len(told) == 1:
        a, b = re.findall("|".join(GENERAL.colours), answer)[:2]
        axis, sign = PLACES_SAID[told[0]]
        return "caption", sign * (at[a][axis] - at[b][axis]) > 0
    return "", True


def test_general_answers_are_what_the_picture_shows():
    met, split = Counter(), general(9, 1500)
    for index, record in enumerate(split.records):
        if not record.has_image:
            continue
        things, origin = record.annotation["things"], Origin("general", "train", 9)
        picture = split.load.__self__.pictures[index]
        boxes = {t.item.colour: box for t, box in zip(things, origin.boxes(picture, index), strict=True)}
        for asked, answer in record.turns:
            kind, right = judged(asked.split("\n")[0], answer, things, boxes)
            assert right, (asked, answer, things)
            met[kind] += 1
    expected = ("region", "edge", "presence", "relation", "size", "number", "side", "caption")
    assert min(met[kind] for kind in expected) > 15, met


def test_a_form_is_asked_for_in_a_line_or_is_the_usual_one():
    rng = np.random.default_rng(0)
    usual = {"number": "three", "colour": "red", "yes": "no", "side": "above", "box": "[0.10, 0.20, 0.30, 0.40]",
             "caption": "a red thing to the left of a blue thing"}  # fmt: skip
    other = {"number": "3", "colour": "the red one", "yes": "false"}
    for name, answer in usual.items():
        met = set()
        for _ in range(200):
            question, (said,) = finished(rng, Said("What?", (answer,), name), {})
            assert question.startswith("What?") and (said == answer or len(question) > 5)
            met.add((question[5:].strip(), said))
        lines = {line for line, _ in met}
        assert "" in lines and len(met) == len(lines)  # a line says the form
        assert name not in other or {said for _, said in met} == {answer, other[name]}
        form = drawn(rng, name)
        assert finished(rng, Said("What?", (answer,), name), {name: form}) == ("What?", (form.say(answer),))
    assert finished(rng, Said("What?", ("grey",)), {}) == ("What?", ("grey",))


def test_the_thing_at_an_edge_is_clearly_there_and_no_other():
    things = tuple(Thing(Item("star", colour, "solid", "small"), x, y, 8) for colour, x, y in (
        ("red", 16, 20), ("blue", 20, 44), ("pink", 40, 44)
    ))  # fmt: skip
    scene = Scene(Picture(things, GENERAL.looks[0], 0.0), lambda: (), "")
    assert {edge: thing.item.colour for edge, thing in scene.outermost.items()} == {
        "on the right": "pink",
        "at the top": "red",
    }
    assert scene.pair is None and not scene.crowd
    assert not scene._replace(picture=Picture(things[:1], GENERAL.looks[0], 0.0)).outermost


# ---- mistakes --------------------------------------------------------------------------------------------------------


def test_mistakes_are_told():
    with pytest.raises(UserError, match=r"'colours'; did you mean 'colour'\?"):
        build(Options(tasks=("colours",)))
    with pytest.raises(UserError, match="'count' 2 times, expected once"):
        build(Options(tasks=("count", "count")))
