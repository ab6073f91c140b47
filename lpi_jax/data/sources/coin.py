"""CoIN: eight tasks of instruction tuning, one after the other, as they are published.

`path` is one of the published folders of instructions (Instructions_Original and its siblings), in this layout:

    ScienceQA/  train.json  test.json            VizWiz/     train.json  val.json
    TextVQA/    train.json  val.json             Grounding/  train.json  test.json
    ImageNet/   train.json  test.json            VQAv2/      train.json  val.json
    GQA/        train.json  test.json            OCRVQA/     train.json  test.json

The second file is the one that is measured, as in CoIN's and ModalPrompt's scripts. Each is a list of records (see
`conversations`): `conversations` to learn from; `question_id`, `text` and `answer` to measure on, with `answer_bbox`
and `size` in Grounding. `images` is the folder that holds ScienceQA/, TextVQA/, COCO2014/, GQA/, OCR-VQA/, ...

TextVQA's ten answers to a question are read from TextVQA_0.5.1_val.json if it is there, in TextVQA/ of either folder;
else the one in val.json is all that counts.
"""

import os
from dataclasses import dataclass, replace
from functools import partial

from lpi_jax.data.examples import Fail, failing_at, shown
from lpi_jax.data.formats import json_file
from lpi_jax.data.formats.json_records import Record
from lpi_jax.data.instructed import Instructed
from lpi_jax.data.sources import conversations
from lpi_jax.data.sources.benchmark import BenchmarkOptions, Published, References, published
from lpi_jax.data.stream import Stream
from lpi_jax.options import option

TEN_ANSWERS = "TextVQA_0.5.1_val.json"


@dataclass(frozen=True)
class Options(BenchmarkOptions):
    """What every benchmark reads, and a repair."""

    cut_vizwiz: int = option(
        0, "characters cut off the paths of VizWiz's measured images; ModalPrompt's release cuts 4", least=0
    )


def coin(options: Options) -> Stream[Instructed]:
    """CoIN as a stream of its eight tasks, or of those that `task_order` names; see `benchmark.published`."""
    return published("CoIN", _tasks(os.fspath(options.images), options.cut_vizwiz), options)


def _tasks(images: str, cut: int) -> tuple[Published, ...]:
    def task(name: str, measured: str, scoring: str, fit: str = "pad") -> Published:
        return Published(name, (name,), "train.json", measured, scoring, fit=fit)

    # Four of the scripts of ModalPrompt's release do not pad what they measure.
    return (
        task("ScienceQA", "test.json", "science_qa", "crop"),
        replace(task("TextVQA", "val.json", "text_vqa"), references=partial(_ten_answers, images)),
        task("ImageNet", "test.json", "imagenet", "crop"),
        task("GQA", "test.json", "gqa"),
        replace(task("VizWiz", "val.json", "vizwiz"), cut=cut),
        task("Grounding", "test.json", "grounding", "crop"),
        task("VQAv2", "val.json", "vqav2", "crop"),
        task("OCRVQA", "test.json", "ocr_vqa"),
    )


def _ten_answers(images: str, folder: str) -> References | None:
    """All answers of TextVQA by question_id, or None if its annotations are not there."""
    places = [folder, *([os.path.join(images, "TextVQA")] if images else [])]
    path = next((file for place in places if os.path.isfile(file := os.path.join(place, TEN_ANSWERS))), None)
    if path is None:
        return None
    known: dict[str, tuple[str, ...]] = {}
    record = json_file.load(path, "TextVQA's annotations, an object with the list data", without=("question_tokens",))
    for place, entry in json_file.entries(path, record, "data"):
        fail = failing_at(f"{path}, {place}")
        entry = json_file.checked_object(entry, fail)
        right = entry.get("answers")
        if not isinstance(right, list) or not right or not all(isinstance(answer, str) for answer in right):
            fail("wrong type", f"answers is {shown(str(right))}; expected a list of strings")
        known[_question_id(entry, fail)] = tuple(right)
    return References(path, known, _question_id)


def _question_id(record: Record, fail: Fail) -> str:
    key = conversations.identifier(record, ("question_id",), fail)
    if key is None:
        fail("missing key", "key 'question_id' is missing")
    return key
