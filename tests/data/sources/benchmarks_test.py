"""CoIN and UCIT from trees in exactly the layouts in which they are published."""

import json
import re

import pytest
from PIL import Image

from lpi_jax.data.instructed import Instructed
from lpi_jax.data.sources import coin, ucit
from lpi_jax.errors import UserError
from tests.support.pixels import shades

COIN = {
    "ScienceQA": "test", "TextVQA": "val", "ImageNet": "test", "GQA": "test", "VizWiz": "val", "Grounding": "test",
    "VQAv2": "val", "OCRVQA": "test",
}  # fmt: skip
UCIT = {
    "ImageNet-R": "train", "ArxivQA": "train_4w", "VizWiz": "train", "IconQA": "train", "CLEVR": "train_4w",
    "Flickr30k": "train_brief_4w",
}  # fmt: skip


def learnt(image, question="<image>\nWhat is it?", answer="A kite"):
    shown = {} if image is None else {"image": image}
    said = [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]
    return {"id": "always the same", **shown, "conversations": said}


def asked(number, image, text="What is it?", answer="A kite", **more):
    shown = {} if image is None else {"image": image}
    return {"question_id": number, **shown, "text": text, "answer": answer, **more}


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def images(folder, tasks):
    for shade, task in enumerate(tasks):
        (folder / task).mkdir(parents=True)
        Image.new("RGB", (6, 4), (shade, 0, 0)).save(folder / task / "a.jpg", quality=100)


@pytest.fixture
def coin_tree(tmp_path):
    """Instructions and images of CoIN's eight tasks: two samples to learn from and two to measure on."""
    images(tmp_path / "images", COIN)
    for task, measured in COIN.items():
        image = f"./{task}/a.jpg"
        box = {"answer_bbox": "[0.5,0.25,1.0,0.75]", "size": [6, 4]} if task == "Grounding" else {}
        write(tmp_path / "coin" / task / "train.json", [learnt(image), learnt(image, "What?\n<image>", "B")])
        write(
            tmp_path / "coin" / task / f"{measured}.json",
            [asked(1, image, "What?", "B", **box), asked("x2", image, "<image>\nWhat?\nIn a word.", **box)],
        )
    text_only = [learnt(None, "Which is a metal?\nA. tin\nB. wood", "A"), learnt("ScienceQA/a.jpg")]
    write(tmp_path / "coin/ScienceQA/train.json", text_only)
    return tmp_path


@pytest.fixture
def ucit_tree(tmp_path):
    """Instructions and images of UCIT's six tasks."""
    images(tmp_path / "images", UCIT)
    for task, train in UCIT.items():
        write(tmp_path / "ucit" / task / f"{train}.json", [learnt(f"{task}/a.jpg")])
        write(tmp_path / "ucit" / task / "test_3000.json", [asked(1, f"{task}/a.jpg", answer="a kite")])
    for task in ("VizWiz", "Flickr30k"):
        coco = {
            "images": [{"id": 1, "file_name": "a.jpg"}],
            "annotations": [{"image_id": 1, "id": k, "caption": f"a kite {k}"} for k in range(5)],
        }
        write(tmp_path / "ucit" / task / "val_coco_type_3000.json", coco)
    return tmp_path


def of_coin(tree, **options):
    return coin.coin(coin.Options(path=str(tree / "coin"), images=str(tree / "images"), **options))


def of_ucit(tree, **options):
    return ucit.ucit(ucit.Options(path=str(tree / "ucit"), images=str(tree / "images"), **options))


def test_coin_has_eight_tasks_in_order_each_judged_in_its_way(coin_tree):
    stream = of_coin(coin_tree)
    assert [task.name for task in stream.tasks] == list(COIN)
    assert [task.val.records[0].scoring for task in stream.tasks] == [
        "science_qa", "text_vqa", "imagenet", "gqa", "vizwiz", "grounding", "vqav2", "ocr_vqa",
    ]  # fmt: skip
    cropped = [task.name for task in stream.tasks if task.val.records[0].fit == "crop"]
    assert cropped == ["ScienceQA", "ImageNet", "Grounding", "VQAv2"]
    assert all(len(task.train) == len(task.val) == 2 for task in stream.tasks)
    assert [shades(task.val)[0] for task in stream.tasks] == pytest.approx(range(8), abs=2)
    assert stream.notes["images"] == 32 and stream.notes["references"] == {}


def test_what_is_learnt_and_what_is_measured(coin_tree):
    task = of_coin(coin_tree).tasks[3]
    first, second = task.train.records
    assert first == Instructed("GQA/train.json, record 1", (("What is it?", "A kite"),), ("A kite",), scoring="gqa")
    assert second.turns == (("What?", "B"),)
    assert task.val.records == (
        Instructed("1", (("What?", "B"),), ("B",), scoring="gqa"),
        Instructed("x2", (("What?\nIn a word.", "A kite"),), ("A kite",), scoring="gqa"),
    )


def test_science_has_samples_without_images(coin_tree):
    text_only, other = of_coin(coin_tree).tasks[0].train.records
    assert not text_only.has_image and other.has_image
    assert text_only.turns[0][0] == "Which is a metal?\nA. tin\nB. wood"


def test_grounding_knows_box_and_size(coin_tree):
    record = of_coin(coin_tree).tasks[5].val.records[0]
    assert record.annotation == {"box": (0.5, 0.25, 1.0, 0.75), "size": (6, 4)}


@pytest.mark.parametrize("folder", ["coin/TextVQA", "images/TextVQA"])
def test_textvqas_ten_answers_are_read_where_they_are(coin_tree, folder):
    ten = [*["kite"] * 3, *["bird"] * 7]
    data = [{"question_id": number, "answers": ten, "question_tokens": []} for number in (1, "x2")]
    write(coin_tree / folder / "TextVQA_0.5.1_val.json", {"data": data})
    stream = of_coin(coin_tree)
    record = stream.tasks[1].val.records[0]
    assert record.answers == tuple(ten) and record.turns == (("What?", "B"),)
    assert stream.notes["references"] == {"TextVQA": str(coin_tree / folder / "TextVQA_0.5.1_val.json")}
    write(coin_tree / folder / "TextVQA_0.5.1_val.json", {"data": [{**one, "answers": ["kite"]} for one in data]})
    assert of_coin(coin_tree).fingerprint != stream.fingerprint
    write(coin_tree / folder / "TextVQA_0.5.1_val.json", {"data": data[:1]})
    with pytest.raises(UserError, match=r"val\.json, record 2: 'x2' is not in .*TextVQA_0\.5\.1_val\.json"):
        of_coin(coin_tree)
    assert of_coin(coin_tree, on_bad_example="skip").skipped == {"no references": 1}


def test_only_the_tasks_that_are_asked_for_need_be_there(coin_tree):
    (coin_tree / "coin/VizWiz").rename(coin_tree / "coin/elsewhere")
    stream = of_coin(coin_tree, task_order=("VQAv2", "GQA"))
    assert [task.name for task in stream.tasks] == ["VQAv2", "GQA"]
    with pytest.raises(UserError, match="there is no folder VizWiz of task VizWiz; expected it with"):
        of_coin(coin_tree)
    with pytest.raises(UserError, match="task_order names 'GQAA', not in CoIN; its tasks are 'ScienceQA', 'TextVQA'"):
        of_coin(coin_tree, task_order=("GQAA",))
    with pytest.raises(UserError, match="task_order names 'GQA' 2 times"):
        of_coin(coin_tree, task_order=("GQA", "GQA"))


def test_images_are_beside_the_instructions_where_nothing_else_is_said(coin_tree):
    for task in COIN:
        (coin_tree / "images" / task / "a.jpg").rename(coin_tree / "coin" / task / "a.jpg")
    assert len(coin.coin(coin.Options(path=str(coin_tree / "coin"))).tasks) == 8


def test_paths_of_vizwiz_can_be_cut_as_the_release_does(coin_tree):
    records = json.loads((coin_tree / "coin/VizWiz/val.json").read_text())
    for record in records:
        record["image"] += ".jpg"
    write(coin_tree / "coin/VizWiz/val.json", records)
    with pytest.raises(UserError, match="there is no such file"):
        of_coin(coin_tree)
    assert len(of_coin(coin_tree, cut_vizwiz=4).tasks[4].val) == 2


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        ("repeated id", {"question_id": "x2"}, "id 'x2' stands already in record 1"),
        ("missing key", {"question_id": None}, "key 'question_id' is missing"),
        ("wrong type", {"question_id": True}, "question_id is true"),
        ("empty question", {"text": "<image>\n "}, "text has nothing in it"),
        ("wrong type", {"text": ["What?"]}, "text is a list"),
        ("several images", {"image": ["GQA/a.jpg", "GQA/a.jpg"]}, "image is a list of 2"),
        ("several images", {"text": "<image><image>?"}, "holds 2 times <image>"),
        ("missing file", {"image": "GQA/b.jpg"}, "there is no such file"),
        ("unsafe path", {"image": "../coin/a.jpg"}, "which leads out of"),
        ("unsafe path", {"image": "/etc/passwd"}, "which leads out of"),
        ("empty answer", {"answer": ""}, "answer holds ''"),
        ("wrong type", {"answer": 4}, "answer holds a number"),
    ],
)
def test_bad_records_of_a_benchmark_are_told_or_counted(coin_tree, kind, changes, message):
    path = coin_tree / "coin/GQA/test.json"
    first, second = json.loads(path.read_text())
    write(path, [second, {**first, **changes}])
    with pytest.raises(UserError, match=re.escape(f"{path}, record 2: ")) as raised:
        of_coin(coin_tree)
    assert message in str(raised.value)
    stream = of_coin(coin_tree, on_bad_example="skip")
    assert {task: dict(kinds) for task, kinds in stream.refused.counts.items()} == {"GQA": {kind: 1}}


def test_grounding_without_a_box_and_answers_that_are_missing_are_told(coin_tree):
    write(coin_tree / "coin/Grounding/test.json", [asked(1, "Grounding/a.jpg")])
    with pytest.raises(UserError, match=r"Grounding/test\.json, record 1: key 'answer_bbox' is missing"):
        of_coin(coin_tree)
    write(coin_tree / "coin/Grounding/test.json", [{"question_id": 1, "image": "Grounding/a.jpg", "text": "Where?"}])
    with pytest.raises(UserError, match=r"Grounding/test\.json, record 1: key 'answer' is missing"):
        of_coin(coin_tree)


def test_a_missing_or_empty_file_is_one_sentence(coin_tree):
    (coin_tree / "coin/GQA/test.json").unlink()
    with pytest.raises(UserError, match=r"GQA/test\.json: there is no such file; expected a JSON list"):
        of_coin(coin_tree)
    write(coin_tree / "coin/GQA/test.json", [])
    with pytest.raises(UserError, match=r"GQA/test\.json: the list is empty"):
        of_coin(coin_tree)


def test_ucit_has_six_tasks_and_all_captions_of_an_image(ucit_tree):
    stream = of_ucit(ucit_tree)
    assert [task.name for task in stream.tasks] == [
        "ImageNet-R", "ArxivQA", "VizWiz-cap", "IconQA", "CLEVR-Math", "Flickr30k",
    ]  # fmt: skip
    scorings = [task.val.records[0].scoring for task in stream.tasks]
    assert scorings == ["exact", "exact", "caption", "exact", "exact", "caption"]
    record = stream.tasks[2].val.records[0]
    assert record.turns == (("What is it?", "a kite"),) and record.answers == tuple(f"a kite {k}" for k in range(5))
    assert list(stream.notes["references"]) == ["VizWiz-cap", "Flickr30k"]


def test_ucits_other_folder_names_are_read_as_well(ucit_tree):
    usual = of_ucit(ucit_tree)
    for old, new in (("VizWiz", "VizWiz-caption"), ("CLEVR", "CLEVR-Math"), ("Flickr30k", "Flickr30k-cap")):
        (ucit_tree / "ucit" / old).rename(ucit_tree / "ucit" / new)
    renamed = of_ucit(ucit_tree)
    assert renamed.fingerprint == usual.fingerprint
    assert [task.val.records for task in renamed.tasks] == [task.val.records for task in usual.tasks]


def test_without_the_captions_file_one_caption_counts_and_an_image_without_captions_is_told(ucit_tree):
    path = ucit_tree / "ucit/VizWiz/val_coco_type_3000.json"
    coco = json.loads(path.read_text())
    write(path, {**coco, "images": [{"id": 1, "file_name": "b.jpg"}]})
    with pytest.raises(UserError, match=r"VizWiz/test_3000\.json, record 1: 'a\.jpg' is not in .*val_coco_type"):
        of_ucit(ucit_tree)
    write(path, {**coco, "annotations": [{"image_id": 2, "id": 1, "caption": "x"}]})
    with pytest.raises(UserError, match=r"annotations\[0\]: image_id is 2, which is none of the file's images"):
        of_ucit(ucit_tree)
    path.unlink()
    assert of_ucit(ucit_tree).tasks[2].val.records[0].answers == ("a kite",)


def test_a_text_only_caption_is_refused(ucit_tree):
    write(ucit_tree / "ucit/VizWiz/test_3000.json", [asked(1, None)])
    with pytest.raises(UserError, match=r"VizWiz/test_3000\.json, record 1: key 'image' is missing"):
        of_ucit(ucit_tree)
