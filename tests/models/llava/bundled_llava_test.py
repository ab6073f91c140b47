"""The bundled LLaVA: small, the one of its record, and able to see."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from configs import questions_modalprompt
from lpi_jax.data.questions import source
from lpi_jax.models.llava import weights
from lpi_jax.models.llava.llava import LLaVA
from lpi_jax.models.weights import fingerprint
from lpi_jax.problems.instruction.assemble import BUNDLED, BUNDLED_CLIP

sys.path.insert(0, str(Path(__file__).parents[3] / "experiments" / "pretrain_tiny_llava"))

import evaluate

SCRIPTS = Path(evaluate.__file__).parent


@pytest.fixture(scope="module")
def backbone():
    return weights.load(BUNDLED, BUNDLED_CLIP)


def test_it_is_small_and_the_one_of_its_record(backbone):
    report = json.loads((SCRIPTS / "report.json").read_text())
    files = {file.name: file.stat().st_size for file in BUNDLED.iterdir()}
    assert files.keys() == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert sum(files.values()) == report["bytes"] < 8e6
    assert fingerprint(backbone[1]) == report["sha256"]
    assert report["steps"] == sum(each["steps"] for each in report["rounds_of_the_recipe"])


def test_it_answers_from_what_it_sees(backbone):
    from transformers import AutoTokenizer

    config, params = backbone
    tokenizer = AutoTokenizer.from_pretrained(str(BUNDLED), local_files_only=True)
    answer = evaluate.Answerer(LLaVA(config), params, tokenizer)
    questions = [
        q for q in evaluate.held_out(77, 150, config.clip.image_size) if q.kind in ("colour", "size", "number")
    ]
    found = evaluate.by_kind(answer, questions)
    own, other = (
        np.average([kind[name] for kind in found.values()], weights=[kind["count"] for kind in found.values()])
        for name in ("exact", "exact_other_picture")
    )
    assert len(questions) > 30 and own > 55 and own > other + 20, found


def test_no_right_answer_is_longer_than_what_is_generated():
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(BUNDLED), local_files_only=True)
    tasks = source.build(source.Options(train=100, val=100)).tasks
    answers = {
        answer for task in tasks for split in (task.train, task.val) for r in split.records for answer in r.answers
    }
    lengths = {answer: len(tokenizer(answer, add_special_tokens=False)["input_ids"]) + 1 for answer in answers}
    limit = questions_modalprompt.get_config().eval.max_new
    assert not {answer: length for answer, length in lengths.items() if length > limit}
