"""The clip-art stream: what becomes of titles, keywords, untrusted XML, look-alikes and the train/val border."""

import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lpi_jax.data.transforms import clean_caption
from tests.support.pixels import pixels
from tests.support.sources import jsonl

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "clipart"))

import clipart_words as words
import prepare
from clipart_words import Corpus, Metadata, UnsafeXML

NOTHING = Corpus(collections=(), generic=(), people=(), frequency=Counter())


def svg(title="A cat", description="", keywords=(), creator="Ann Other", body="", head=""):
    items = "".join(f"<rdf:li>{keyword}</rdf:li>" for keyword in keywords)
    return f"""<?xml version="1.0" encoding="UTF-8"?>{head}
<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"
     xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#" xmlns:dc="http://purl.org/dc/elements/1.1/"
     xmlns:cc="http://web.resource.org/cc/"><title>not this one</title><metadata><rdf:RDF><cc:Work rdf:about="">
<dc:title>{title}</dc:title><dc:description>{description}</dc:description>
<dc:subject><rdf:Bag>{items}</rdf:Bag></dc:subject>
<dc:publisher><cc:Agent><dc:title>Nor this</dc:title></cc:Agent></dc:publisher>
<dc:creator><cc:Agent><dc:title>{creator}</dc:title></cc:Agent></dc:creator>
</cc:Work></rdf:RDF></metadata>{body}</svg>""".encode()


# untrusted XML


def test_metadata_is_read_from_the_work_alone():
    found = words.read_metadata(svg("A  big\n cat", "It sleeps.", ["cat", " pet "]))
    assert found == Metadata("A big cat", "It sleeps.", ("cat", "pet"), "Ann Other", linked=False)
    assert words.read_metadata(b"<svg/>") == Metadata()


@pytest.mark.parametrize(
    "data, message",
    [
        (svg("&lol;", head='<!DOCTYPE svg [<!ENTITY lol "lol"><!ENTITY lol2 "&lol;&lol;">]>'), "declares entities"),
        (svg("&x;", head='<!DOCTYPE svg [<!ENTITY x SYSTEM "file:///etc/passwd">]>'), "declares entities"),
        (
            svg("x", head='<!DOCTYPE svg [<!ENTITY % p SYSTEM "http://example.invalid/x.dtd"> %p;]>'),
            "declares entities",
        ),
        (svg()[:-6], "not well-formed"),
        (b"", "not well-formed"),
        (b"\xff\xfe\x00", "not well-formed"),
        (b'<?xml version="1.0" encoding="no-such"?><svg/>', "not well-formed"),
        (b" " * (words.MAX_XML_BYTES + 1), "too large"),
    ],
)
def test_unsafe_xml_is_refused(data, message):
    with pytest.raises(UnsafeXML, match=message):
        words.read_metadata(data)


def test_pictures_that_are_not_in_the_file_are_noticed():
    assert words.read_metadata(svg(body='<image xlink:href="/home/ann/cat.png"/>')).linked
    assert not words.read_metadata(svg(body='<image xlink:href="data:image/png;base64,AAAA"/>')).linked
    assert not words.read_metadata(svg(body='<use xlink:href="#cat"/>')).linked


# captions


@pytest.mark.parametrize(
    "raw, plain",
    [
        ("Ice Cream Cone (B &amp; W)", "ice cream cone black and white"),
        ("glace_06_bw", "glace 06 black and white"),
        ("boat2", "boat"),
        ("house 02", "house"),
        ("M16", "m16"),
        ("Route 66", "route 66"),
        ("BlueMan#107", "blue man"),
        ("Golf flag + ball", "golf flag and ball"),
        ("knight's shield.svg", "knights shield"),
        ("castle - RPG map elements", "castle"),
        ("an old dog by Jane Doe", "an old dog"),
        ("a house by the sea", "a house by the sea"),
    ],
)
def test_plain_words(raw, plain):
    assert words.plain_words(raw) == plain


@pytest.mark.parametrize(
    "stem, creator, expected",
    [
        ("cavallo_architetto_franc_07", "Architetto Francesco Rollandin", "cavallo"),
        ("aiga_no_smoking_", "Jean-Victor Balin", "no_smoking"),
        ("fireworks_ganson", "Gerald G.", "fireworks"),
        ("turn_left", "John Cliff", "turn_left"),
        ("smiley_01b", "x", "smiley"),
    ],
)
def test_words_of_file(stem, creator, expected):
    assert words.words_of_file(stem, creator) == expected


@pytest.mark.parametrize(
    "title, stem, expected",
    [
        ("Blue Girl", "x", "blue girl"),
        ("Road Signs", "turn_left", "turn left"),  # a collection's title
        ("Clipart by Nicu Buculei - pear", "banana", "banana"),  # the author copied his template
        ("", "hen_ann_other_01", "hen"),
        ("untitled", "hen_01", "hen"),
        ("ann@example.org", "hen", "hen"),
        ("Ann Other", "hen", "hen"),
        ("TV", "x", "tv"),
        ("drawing", "image_01", ""),
        ("12", "fc23", ""),
    ],
)
def test_title_of(title, stem, expected):
    corpus = Corpus(collections={"Road Signs"}, generic=(), people=(), frequency=Counter())
    assert words.title_of(Metadata(title, creator="Ann Other"), stem, corpus) == expected


def test_keywords_that_say_something_are_kept_the_rarer_shared_ones_first():
    keywords = (
        "hash",
        "clip_art",
        "animal",
        "cats",
        "bodypart",
        "ann other",
        "0x12",
        "a@b.org",
        "zzyzx",
        "Feline",
        "felines",
    )
    frequency = Counter({"animal": 300, "feline": 20, "body part": 50, "zzyzx": 1})
    corpus = Corpus((), (), {"ann other"}, frequency)
    found = words.keywords_of(Metadata(keywords=keywords), "black cat", corpus)
    assert found == ["feline", "body part", "animal", "zzyzx"]


@pytest.mark.parametrize(
    "description, kept",
    [
        ("A cat asleep on a red sofa. It snores.", "a cat asleep on a red sofa"),
        ("This is a cat asleep on a sofa", "a cat asleep on a sofa"),
        ("A cat", ""),
        ("ann@example.org", ""),
        ("A nice cat from http://example.org/cats", ""),
        ("Created with Inkscape in one hour", ""),
        ("my cat on the sofa", ""),
        ("HASH(0x853142c)", ""),
        ("one of many drawings of everything", ""),  # said of many drawings
    ],
)
def test_description_of(description, kept):
    corpus = Corpus((), {"one of many drawings of everything"}, (), Counter())
    assert words.description_of(Metadata("Cat", description), "cat", corpus) == kept


def test_captions_are_one_to_three():
    metadata = Metadata("Black cat", "Two kittens on a red sofa.", ("pet", "animal", "mammal", "feline"))
    assert words.captions_of(metadata, "x", NOTHING) == (
        "black cat",
        "black cat, animal, feline, mammal",
        "black cat, two kittens on a red sofa",
    )
    assert words.captions_of(Metadata("Black cat", "a black cat on a red sofa"), "x", NOTHING)[-1] == (
        "a black cat on a red sofa"
    )
    assert words.captions_of(Metadata("Black cat"), "x", NOTHING) == ("black cat",)
    assert words.captions_of(Metadata("untitled"), "image", NOTHING) == ()
    assert words.word_count(("cats, pet", "a cat")) == 3


def test_corpus_knows_what_is_shared():
    records = [Metadata("Set", "about the set", ("x", "y"), "Ann")] * 10 + [Metadata("One", "alone", ("x",), "Bob")]
    corpus = Corpus.of(records)
    assert corpus.collections == {"Set"} and corpus.generic == {"about the set"} and corpus.people == {"ann", "bob"}
    assert corpus.frequency == {"x": 11, "y": 10}


def test_families():
    assert words.family("big house black and white") == words.family("big houses") == "big house"
    assert words.family("house") != words.family("horse")


# pictures


def drawn(seed, size=120, colour=None):
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (size, size), "white")
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, w, h = rng.uniform(0, size, 4)
        shade = colour or tuple(rng.integers(0, 200, 3))
        draw.ellipse([x, y, x + w / 2 + 5, y + h / 2 + 5], fill=tuple(int(v) for v in shade))
    return picture


def drawing(key, picture, title="thing", creator="ann", captions=None):
    pixels = prepare.frame(np.asarray(picture))
    bits, colours = prepare.look_of(pixels)
    return prepare.Drawing(key, creator, captions or (title,), pixels, bits, colours)


def test_frame_cuts_centres_and_shrinks():
    page = np.full((400, 300, 3), 255, np.uint8)
    page[350:390, 100:200] = 0
    square = prepare.frame(page)
    assert square.shape == (108, 108, 3) and (square == 0).all(axis=2).sum() == 4000
    assert (square[:34] == 255).all() and (square[:, :4] == 255).all() and (square[34, 4] == 0).all()
    assert prepare.frame(np.zeros((900, 300, 3), np.uint8)).shape == (160, 160, 3)
    page[:] = 250
    assert prepare.frame(page) is None
    page[3:8, 3:8] = 0
    assert prepare.frame(page) is None


def test_look_survives_scaling_and_tells_drawings_apart():
    picture = drawn(1, 400)
    one = drawing("a", picture)
    same = drawing("b", picture.resize((250, 250), Image.Resampling.LANCZOS))
    other = drawing("c", drawn(2, 400))
    assert prepare.near_pairs([one, same, other], *prepare.COPY) == [(0, 1)]
    assert (one.bits != other.bits).sum() > 40


def test_near_pairs_equals_comparing_every_pair():
    drawings = [drawing(str(i), drawn(i % 7, 100 + 10 * i)) for i in range(20)]
    slow = [
        (i, j)
        for i, a in enumerate(drawings)
        for j, b in enumerate(drawings)
        if i < j and (a.bits != b.bits).sum() <= 40 and np.abs(a.colours - b.colours).mean() <= 25
    ]
    assert prepare.near_pairs(drawings, 40, 25.0) == slow and slow


def test_of_copies_the_one_in_the_deepest_folder_of_a_task_stays():
    keys = ["unsorted/a/b/c/cat", "animals/cat", "animals/mammals/cat"]
    kept = prepare.without_copies([drawing(key, drawn(1)) for key in keys] + [drawing("food/pie", drawn(2))])
    assert [d.key for d in kept] == ["animals/mammals/cat", "food/pie"]


def test_clusters_join_look_alikes_and_one_authors_variants():
    drawings = [
        drawing("a", drawn(1), "cat", "ann"),
        drawing("b", drawn(1, colour=None).resize((90, 90)), "dog", "bob"),  # looks like a
        drawing("c", drawn(3), "house 1", "ann"),
        drawing("d", drawn(4), "houses", "ann"),  # family of c
        drawing("e", drawn(5), "houses", "bob"),  # another author's
        drawing("f", drawn(6), "horse", "bob"),
    ]
    a, b, c, d, e, f = prepare.clusters(drawings)
    assert a == b and c == d and len({a, c, e, f}) == 4


def test_flags_are_a_task_of_their_own():
    assert drawing("signs_and_symbols/flags/asia/japan", drawn(1)).folder == "flags"
    assert drawing("signs_and_symbols/weather/sun", drawn(1)).folder == "signs_and_symbols"


def test_val_has_no_look_alikes_and_no_caption_twice():
    drawings = [drawing(f"animals/{i}", drawn(i), captions=(f"animal {i % 20}",)) for i in range(40)]
    drawings += [drawing(f"food/{i}", drawn(100 + i), captions=(f"Animal, {i}",)) for i in range(40)]
    cluster = [0 if i < 10 else i for i in range(80)]
    val = prepare.val_keys(drawings, cluster, ["animals", "food"])
    assert val == prepare.val_keys(drawings, cluster, ["animals", "food"])
    chosen = [d for d in drawings if d.key in val]
    assert Counter(d.folder for d in chosen) == {"animals": 10, "food": 10}
    assert not val & {d.key for d in drawings[:10]}
    captions = [clean_caption(caption) for d in chosen for caption in d.captions]
    assert len(set(captions)) == len(captions)


# the whole


@pytest.fixture
def archive(tmp_path):
    """A small openclipart: fourteen folders of twelve drawings, copies, an icon theme, a bomb and a blank one."""
    root = tmp_path / "openclipart"
    folders = [name for name in prepare.CANDIDATES if name not in ("flags", "containers", "science")]

    def add(key, picture, data):
        for kind, ending in (("svg", "svg"), ("png", "png")):
            path = root / kind / f"{key}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            if kind == "svg":
                path.write_bytes(data)
            else:
                picture.save(path)

    for n, folder in enumerate(folders):
        for i in range(12 + (n < 10)):
            name = "".join(chr(97 + int(d)) for d in f"{n:02d}{i:02d}")
            add(f"{folder}/{name}", drawn(100 * n + i), svg(f"{name} thing{name}", "", [folder], f"author {name}"))
    add("animals/copy", drawn(0), svg("a copied thing"))
    add("computer/icons/save", drawn(9999), svg("save to disk"))
    add("animals/bomb", drawn(9998), svg("&x;", head='<!DOCTYPE svg [<!ENTITY x "x">]>'))
    add("animals/blank", Image.new("RGBA", (50, 50)), svg("a blank thing"))
    add("animals/mute", drawn(9997), svg("", keywords=["animal"]))
    add("animals/linked", drawn(9996), svg("a linked thing", body='<image xlink:href="x.png"/>'))
    (root / "png/animals/mute.png").rename(root / "png/animals/42.png")
    (root / "svg/animals/mute.svg").rename(root / "svg/animals/42.svg")
    return root


@pytest.mark.parametrize(
    "key, kind",
    [
        ("animals/mammals/big_cats/lion_01", "big cats, mammals, animals"),
        ("office/pen", "office"),
        ("signs_and_symbols/flags/europe/france/ain", "france, europe, flags"),
        ("signs_and_symbols/weather/sun", "weather, signs and symbols"),
    ],
)
def test_a_kind_is_what_the_folders_say_from_the_deepest_up(key, kind):
    assert prepare.Drawing(key, "", ()).kind == kind


def test_the_whole_preparation(archive, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert prepare.main(["--root", str(archive), "--out", str(out)]) == 0
    report = json.loads((out / "report.json").read_text())
    assert json.loads(capsys.readouterr().out) == report
    assert report["dropped"] == {
        "metadata: declares entities": 1,
        "icon theme, card deck or other set": 1,
        "shows a linked picture that is not there": 1,
        "no usable title": 1,
        "blank picture": 1,
        "copy of another drawing": 1,
    }
    stream = jsonl(out / "stream.jsonl", on_bad_example="skip")
    assert len(stream.tasks) == 12 and stream.skipped == {}
    assert report["drawings"] == sum(report["dropped"].values()) + len(list((out / "images").iterdir()))
    val = {key for task in stream.tasks for key in task.val.keys}
    train = {key for task in stream.tasks for key in task.train.keys}
    background = [json.loads(line) for line in (out / "background.jsonl").read_text().splitlines()]
    seen = {line["image"] for line in background}
    assert not val & train and not val & seen
    assert 0.3 < len(train & seen) / len(train) < 0.7
    others = {line["task"] for line in background} - {task.name for task in stream.tasks}
    assert len(others) == 2  # the two smallest folders
    assert pixels(stream.tasks[0].val.load(0)).shape[2] == 3
    kinds = jsonl(out / "kinds.jsonl", on_bad_example="error")
    assert [(task.name, task.train.keys, task.val.keys) for task in kinds.tasks] == [
        (task.name, task.train.keys, task.val.keys) for task in stream.tasks
    ]
    told = {caption for task in kinds.tasks for record in task.val.records for caption in record.captions}
    assert len(told) <= report["kinds"] < report["drawings"]
    again = tmp_path / "again"
    again.mkdir()
    assert prepare.main(["--root", str(archive), "--out", str(again)]) == 0
    assert json.loads((again / "report.json").read_text()) == report
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again", "new", "openclipart"]


def test_a_users_mistakes_are_one_sentence(archive, tmp_path, capsys):
    def said(*arguments):
        assert prepare.main([str(a) for a in arguments]) == 2
        return capsys.readouterr().err

    assert "apt-get install openclipart-png openclipart-svg" in said("--root", tmp_path / "no", "--out", tmp_path / "x")
    assert "new or empty" in said("--root", archive, "--out", archive)
    (tmp_path / "empty/svg").mkdir(parents=True)
    (tmp_path / "empty/png").mkdir()
    assert "no usable drawing" in said("--root", tmp_path / "empty", "--out", tmp_path / "x")
    (tmp_path / "file").write_text("")
    assert "cannot be written" in said("--root", archive, "--out", tmp_path / "file" / "x")
    assert not (tmp_path / "x").exists()


def test_a_failure_leaves_nothing_behind(archive, tmp_path, monkeypatch):
    monkeypatch.setattr(prepare, "write", lambda *_: 1 / 0)
    out = tmp_path / "out" / "x"
    with pytest.raises(ZeroDivisionError):
        prepare.main(["--root", str(archive), "--out", str(out)])
    assert list(out.parent.iterdir()) == []
