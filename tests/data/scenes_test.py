"""The promises of the procedural stream; a small parser that shares no code with the caption writer judges truth."""

import dataclasses
import pickle
import re

import numpy as np
import pytest

from lpi_jax.data.scenes import source as module
from lpi_jax.data.scenes.domain import GENERAL
from lpi_jax.data.scenes.domains import TABLE
from lpi_jax.data.scenes.drawing import PAINTS
from lpi_jax.data.scenes.shapes import GENERAL_SHAPES, SHAPES
from lpi_jax.data.scenes.source import DEVELOPMENT_DOMAINS, DOMAINS, general, scenes
from lpi_jax.errors import UserError
from tests.support.pixels import pixels
from tests.support.splits import captions_of

EVERY = (*DOMAINS, *DEVELOPMENT_DOMAINS)
GOLDEN_CAPTIONS = (  # of general(0, 3): the first image's captions, and every image's mean colour
    "a large dotted yellow arrow right of a large striped blue triangle on dim speckled brown paper",
    "dim speckled brown paper, big spotted yellow arrow, right of big striped blue triangle",
    "the big dotted yellow arrow is right of the big striped blue triangle, on dim speckled brown paper",
)
GOLDEN_MEANS = ((142.1, 117.5, 95.0), (171.7, 153.2, 121.6), (165.2, 191.0, 232.6))
RELATIONS = ("left of", "right of", "above", "below")


@pytest.fixture(scope="module")
def stream():
    return scenes(EVERY, seed=3, train=40, val=40)


@pytest.fixture(scope="module")
def plain():
    return general(3, 60)


def splits(stream, plain):
    yield "general", GENERAL, plain
    for task in stream.tasks:
        yield f"{task.name} train", TABLE[task.name], task.train
        yield f"{task.name} val", TABLE[task.name], task.val


def pairs_of(split):
    """Per image its stated pairs, told from the left or upper end, as a set of strings."""
    told = []
    for i in range(len(split)):
        scene, rows = split.records[i].annotation, set()
        for a, relation, b in scene.relations:
            if relation in ("right of", "below"):
                a, b = b, a
            axis = "across" if relation in RELATIONS[:2] else "down"
            a, b = scene.objects[a], scene.objects[b]
            rows.add(f"{a.colour} {a.shape} {axis} {b.colour} {b.shape}")
        told.append(frozenset(rows))
    return told


def vocabulary(domain):
    """Every way in which the domain can say a plain word -> (kind, plain word)."""
    kinds = {
        "shape": domain.shapes,
        "colour": domain.colours,
        "texture": ("striped", "dotted"),
        "size": ("big", "small"),
        "relation": RELATIONS,
    }
    said = {}
    for kind, plains in kinds.items():
        for plain in plains:
            for word in {plain, *domain.voice.words.get(plain, ())}:
                assert word not in said, f"{domain.name}: {word!r} means {plain!r} and {said[word]!r}"
                said[word] = (kind, plain)
    return said


def parse(caption, said):
    """[(kind, plain word)] in order; the longest word wins ("mounted left of" before "left of")."""
    words = sorted(said, key=len, reverse=True)
    return [said[m] for m in re.findall(r"\b(?:" + "|".join(map(re.escape, words)) + r")\b", caption)]


def holds(relation, a, b):
    """Whether object a lies on that side of object b, clearly: apart along the axis, and more than across it."""
    ax, ay, bx, by = (float(v) for o in (a, b) for v in ((o.box[0] + o.box[2]) / 2, (o.box[1] + o.box[3]) / 2))
    apart = {"left of": bx - ax, "right of": ax - bx, "above": by - ay, "below": ay - by}[relation]
    aside = abs(by - ay) if relation in RELATIONS[:2] else abs(bx - ax)
    return apart > 1.5 * aside and apart > 10


def test_the_same_arguments_give_the_same_images_captions_and_annotations(stream):
    again = scenes(EVERY, seed=3, train=40, val=40)
    assert again.fingerprint == stream.fingerprint
    for a, b in zip(stream.tasks, again.tasks, strict=True):
        assert (a.name, captions_of(a.train), a.val.keys) == (b.name, captions_of(b.train), b.val.keys)
        assert a.val.records[7].annotation == b.val.records[7].annotation
        np.testing.assert_array_equal(pixels(a.train.load(5)), pixels(b.train.load(5)))


def test_images_do_not_depend_on_the_order_in_which_they_are_asked_for(plain):
    forwards = [pixels(plain.load(i)) for i in (0, 1, 2)]
    backwards = [pixels(plain.load(i)) for i in (2, 1, 0)]
    np.testing.assert_array_equal(forwards, backwards[::-1])


def test_general_scenes_are_the_same_on_every_machine():
    split = general(0, 3)
    assert captions_of(split)[0] == GOLDEN_CAPTIONS
    means = [pixels(split.load(i)).mean((0, 1)) for i in range(3)]
    np.testing.assert_allclose(means, GOLDEN_MEANS, atol=1.0)  # another Pillow may round an edge differently


def test_a_domain_does_not_depend_on_the_other_domains_and_a_longer_split_begins_with_the_shorter(stream):
    (alone,) = scenes(["museum"], seed=3, train=10, val=60).tasks
    task = next(t for t in stream.tasks if t.name == "museum")
    assert captions_of(task.train)[:10] == captions_of(alone.train)
    assert captions_of(task.val) == captions_of(alone.val)[:40]
    np.testing.assert_array_equal(pixels(task.val.load(9)), pixels(alone.val.load(9)))


def test_another_seed_gives_other_scenes(stream):
    other = scenes(EVERY, seed=4, train=40, val=40)
    for a, b in zip(stream.tasks, other.tasks, strict=True):
        assert len(set(captions_of(a.val)) & set(captions_of(b.val))) <= 1


def test_no_pair_of_a_val_scene_is_ever_stated_in_a_train_or_general_scene_of_any_domain_or_seed(stream):
    other = scenes(EVERY, seed=11, train=150, val=10)
    seen = set().union(*pairs_of(general(5, 2000)))
    held_out = set()
    for made in (stream, other):
        for task in made.tasks:
            seen.update(*pairs_of(task.train))
            held_out.update(*pairs_of(task.val))
    assert len(held_out) > 500
    assert not seen & held_out


def test_no_content_occurs_twice_in_a_split_and_no_val_scenes_state_the_same_pairs(stream, plain):
    for name, _, split in splits(stream, plain):
        contents = [
            (pairs, frozenset((o.shape, o.colour, o.texture, o.size) for o in split.records[i].annotation.objects))
            for i, pairs in enumerate(pairs_of(split))
        ]
        assert len(set(contents)) == len(split), name
        if name.endswith(" val"):
            assert len(set(pairs_of(split))) == len(split), name


def test_keys_are_unique_and_val_captions_are_unique_in_the_whole_stream(stream, plain):
    keys = [key for _, _, split in splits(stream, plain) for key in split.keys]
    assert len(set(keys)) == len(keys)
    spoken = [c for task in stream.tasks for captions in captions_of(task.val) for c in captions]
    assert len(set(spoken)) == len(spoken) == 3 * 40 * len(EVERY)
    trained = {c for task in stream.tasks for captions in captions_of(task.train) for c in captions}
    assert not trained & set(spoken)


def test_every_caption_is_true_and_names_all_objects_and_relations(stream, plain):
    three = 0
    for name, domain, split in splits(stream, plain):
        said = vocabulary(domain)
        for i, captions in enumerate(captions_of(split)):
            scene = split.records[i].annotation
            known = {(o.colour, o.shape): o for o in scene.objects}
            assert len(known) == len(scene.objects)
            three += len(scene.objects) == 3
            for caption in captions:
                where = f"{name} {i}: {caption}"
                assert name == "general" or caption.count(scene.ground) == 1, where
                tokens = parse(caption.replace(scene.ground, ""), said)
                colours = [w for kind, w in tokens if kind == "colour"]
                shapes = [w for kind, w in tokens if kind == "shape"]
                relations = [w for kind, w in tokens if kind == "relation"]
                mentions = list(zip(colours, shapes, strict=True))
                assert len(mentions) == 2 * len(relations) == 2 * len(scene.relations), where
                assert set(mentions) == set(known), where
                for k, relation in enumerate(relations):
                    a, b = (known[m] for m in mentions[2 * k : 2 * k + 2])
                    assert holds(relation, a, b), where
                if len(relations) == 1:  # size and texture stand on their object's side of the relation
                    middle = tokens.index(("relation", relations[0]))
                    for half, mention in zip((tokens[:middle], tokens[middle:]), mentions, strict=True):
                        for kind, word in half:
                            assert kind == "relation" or getattr(known[mention], kind) == word, where
    assert three > 20


def test_every_image_has_three_different_captions_that_fit_a_clip_context(stream, plain):
    for name, _, split in splits(stream, plain):
        for captions in captions_of(split):
            assert len(captions) == len(set(captions)) == 3, name
            assert all(len(c.split()) <= 45 and c == c.strip() and "  " not in c for c in captions), captions


def test_stated_relations_agree_with_the_boxes_and_no_boxes_overlap(stream, plain):
    for name, _, split in splits(stream, plain):
        for i in range(len(split)):
            scene = split.records[i].annotation
            for a, relation, b in scene.relations:
                assert holds(relation, scene.objects[a], scene.objects[b]), f"{name} {i}"
            boxes = [o.box for o in scene.objects]
            for k, (ax0, ay0, ax1, ay1) in enumerate(boxes):
                assert 0 <= ax0 < ax1 <= 64 and 0 <= ay0 < ay1 <= 64, f"{name} {i}"
                for bx0, by0, bx1, by1 in boxes[:k]:
                    assert min(ax1, bx1) - max(ax0, bx0) <= 1 or min(ay1, by1) - max(ay0, by0) <= 1, f"{name} {i}"


def test_big_objects_have_clearly_larger_boxes_than_small_ones(stream, plain):
    sides = {"big": [], "small": []}
    for _, _, split in splits(stream, plain):
        for i in range(len(split)):
            for o in split.records[i].annotation.objects:
                sides[o.size].append(max(o.box[2] - o.box[0], o.box[3] - o.box[1]))
    assert np.mean(sides["big"]) > np.mean(sides["small"]) + 5
    assert np.quantile(sides["big"], 0.1) > np.quantile(sides["small"], 0.9)


@pytest.mark.parametrize("name", ["general", *EVERY])
def test_without_an_object_the_image_changes_in_its_box(stream, plain, name):
    split = plain if name == "general" else next(t.val for t in stream.tasks if t.name == name)
    maker = split.load.__self__
    for i in range(8):
        image = pixels(split.load(i)).astype(int)
        for k, thing in enumerate(split.records[i].annotation.objects):
            change = np.abs(image - pixels(maker.image(i, without=k))).sum(-1)
            x0, y0, x1, y1 = thing.box
            inside = change[y0:y1, x0:x1]
            grown = change[max(0, y0 - 5) : y1 + 5, max(0, x0 - 5) : x1 + 5]
            assert grown.sum() == change.sum(), "an object changes nothing far from its box"
            assert inside.sum() >= 0.7 * change.sum()  # the rest is shadow or blur
            assert (inside > 30).mean() > 0.2
            if name == "general":  # nothing smears there: the box is tight
                rows, columns = np.nonzero(change.any(1))[0], np.nonzero(change.any(0))[0]
                found = np.asarray([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
                assert np.abs(found - thing.box).max() <= 1


def test_images_are_rgb_and_all_different(stream, plain):
    seen = set()
    for _, _, split in splits(stream, plain):
        for i in range(20):
            image = pixels(split.load(i))
            assert image.shape == (64, 64, 3)
            seen.add(image.tobytes())
    assert len(seen) == 20 * (1 + 2 * len(EVERY))


@pytest.mark.parametrize("size", [32, 100, 224])
def test_any_image_size_shows_the_same_scene(size):
    small, other = (scenes(EVERY, seed=1, train=1, val=1, image_size=s) for s in (64, size))
    for a, b in zip(small.tasks, other.tasks, strict=True):
        assert captions_of(a.val) == captions_of(b.val)
        assert pixels(b.val.load(0)).shape == (size, size, 3)
        for p, q in zip(a.val.records[0].annotation.objects, b.val.records[0].annotation.objects, strict=True):
            np.testing.assert_allclose(np.asarray(p.box) / 64, np.asarray(q.box) / size, atol=1 / 64 + 1 / size)


def test_images_can_be_made_in_other_processes(stream):
    load = pickle.loads(pickle.dumps(stream.tasks[4].train.load))
    np.testing.assert_array_equal(pixels(load(3)), pixels(stream.tasks[4].train.load(3)))


def test_the_fingerprint_changes_with_every_argument_and_with_the_table(monkeypatch):
    base = {"domains": ["beach", "fax"], "seed": 0, "train": 2, "val": 2, "image_size": 64}
    changes = [{}, {"domains": ["fax", "beach"]}, {"seed": 1}, {"train": 3}, {"val": 3}, {"image_size": 32}]
    prints = {scenes(**{**base, **change}).fingerprint for change in changes}
    monkeypatch.setattr(module, "TABLE", {**TABLE, "fax": dataclasses.replace(TABLE["fax"], accent=0.11)})
    prints.add(scenes(**base).fingerprint)
    assert len(prints) == 7 and all(re.fullmatch("[0-9a-f]{64}", p) for p in prints)


def test_twelve_domains_and_four_others_each_with_its_own_look_forms_and_mostly_known_objects():
    assert len(DOMAINS) == 12 and len(DEVELOPMENT_DOMAINS) == 4 and len(set(EVERY)) == 16
    frames = [form.frame + form.clause for name in EVERY for form in TABLE[name].voice.forms]
    looks = [look for name in EVERY for look in TABLE[name].looks]
    assert len({(look.backdrop, look.finishes) for look in looks}) == len({look.ground for look in looks}) == 16
    assert len(set(frames)) == len(frames)
    assert len({TABLE[n].description for n in EVERY}) == 16
    assert len({frozenset(TABLE[n].colours) for n in EVERY}) == 16
    for name in EVERY:
        domain = TABLE[name]
        assert sum(s in GENERAL_SHAPES for s in domain.shapes) >= len(domain.shapes) / 2, name
        assert set(domain.shapes) <= set(SHAPES) and len(domain.colours) == 6 and set(domain.colours) <= set(PAINTS)
        plain = {*domain.shapes, "striped", "dotted", *domain.colours, *RELATIONS, "big", "small"}
        assert set(domain.voice.words) <= plain, f"{name} has words for what it never shows"
        assert set(RELATIONS) <= set(domain.voice.words)
        assert 0 <= domain.strength <= 1 and 0 <= domain.accent <= 1


def test_a_general_caption_names_no_ground_but_its_own_and_grounds_are_seen_in_the_image():
    split = general(3, 400)
    grounds = {look.ground for look in GENERAL.looks}
    named = 0
    for i, captions in enumerate(captions_of(split)):
        own = split.records[i].annotation.ground
        assert own in grounds
        for caption in captions:
            said = [g for g in grounds if g in caption]
            assert max(said, key=len, default=own) == own, caption
            named += bool(said)
    assert 0.6 < named / 1200 < 0.9
    corner = {look.ground: [] for look in GENERAL.looks}
    for i in range(400):
        corner[split.records[i].annotation.ground].append(pixels(split.load(i))[5:9, 5:9].mean((0, 1)))
    dark = np.mean([v for g, rows in corner.items() for v in rows if "black" in g])
    pale = np.mean([v for g, rows in corner.items() for v in rows if "white" in g])
    assert pale > dark + 80


def test_shapes_stay_within_their_radius():
    for name, parts in SHAPES.items():
        points = np.concatenate([part.points for part in parts if part.ink])
        assert np.abs(points).max() <= 1.001, name
        assert np.abs(points).max() > 0.8, name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domains": ["museums"]}, "unknown domain 'museums'; did you mean 'museum'"),
        ({"domains": ["general"]}, "unknown domain 'general'"),
        ({"domains": []}, "no domain was given"),
        ({"domains": ["fax", "fax"]}, "domain 'fax' is given 2 times"),
        ({"train": 0}, "train is 0; expected a whole number of at least 1"),
        ({"val": -3}, "val is -3"),
        ({"val": 2.5}, "val is 2.5"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"image_size": 8}, "image_size is 8; expected a whole number of at least 16"),
    ],
)
def test_a_wrong_argument_is_one_sentence(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        scenes(**arguments)


def test_asking_for_more_scenes_than_a_domain_has_is_an_error_not_a_hang(monkeypatch):
    tiny = dataclasses.replace(TABLE["fax"], shapes=("circle",), colours=("red", "blue", "green"))
    monkeypatch.setattr(module, "TABLE", {**TABLE, "fax": tiny})
    with pytest.raises(UserError, match=r"val is 100, but domain 'fax' has hardly more than \d+ distinct val scenes"):
        scenes(["fax"], train=1, val=100)


def test_general_rejects_a_wrong_count():
    with pytest.raises(UserError, match="count is 0"):
        general(0, 0)
