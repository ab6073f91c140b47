"""The parts of a backbone fit together, or one sentence says what does not; also without its tensors."""

import json
import shutil
from dataclasses import replace

import pytest

from lpi_jax.check import refusals
from lpi_jax.data.instructed import Instructed
from lpi_jax.data.stream import Split
from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import assemble, stream_of
from lpi_jax.problems.instruction.assemble import look
from tests.support import small_llava


def test_a_look_knows_what_a_run_finds(make_asked, asked_experiment):
    found, config = look(make_asked()), asked_experiment.problem.model.config
    assert (found.unknown, found.refused) == ("", ())
    assert found.llava == config
    assert found.sites == asked_experiment.problem.sites
    assert found.image_size == asked_experiment.backbone.image_size == 32
    assert refusals.refusals(make_asked(), found, stream_of(make_asked(), 32)) == []
    count, reserve = found.count_cut(make_asked(), {"language": 6}), {"language": 6}
    said = (("Is there a box?", "yes"),) * 60  # of which no turn alone is too long
    split = Split(tuple(Instructed(str(number), said[:turns], ("yes",)) for number, turns in enumerate((1, 60))), None)
    assert count(split) == asked_experiment.problem.cut(split, reserve) == 1


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"backbone": "some/where"}, "some/where"),
        ({"problem.clip": "some/clip"}, "some/clip is not on this machine; a run would have to fetch it"),
        ({"tokenizer": "/no/such/folder"}, "/no/such/folder"),
    ],
)
def test_a_look_says_what_is_not_there(changes, said, make_asked):
    found = look(make_asked(changes))
    assert said in found.unknown
    assert found.sites is None or "tokenizer" in changes


def test_the_sequence_of_a_long_conversation_is_counted_as_cut(asked_experiment):
    split = asked_experiment.stream.tasks[0].train
    assert asked_experiment.problem.cut(split, asked_experiment.method.reserve) == 0
    most = asked_experiment.problem.texts.longest
    assert asked_experiment.problem.cut(split, {"language": most - 20}) == len(split)


def test_a_sample_whose_right_answers_are_all_longer_than_what_is_generated_is_counted_as_cut(asked_experiment):
    problem, asked = asked_experiment.problem, (("What is it?", "a box"),)
    split = Split(
        tuple(Instructed(str(k), asked, answers) for k, answers in enumerate((("a box", "b"), ("a box",)))), None
    )
    cut = {
        most: replace(problem, measured=problem.measured._replace(max_new=most)).cut(split, {}) for most in (1, 2, 3, 9)
    }
    assert (cut[1], cut[9]) == (2, 0) and cut[2] == 1


def test_tokenizers_of_another_network_are_refused(make_asked, llava_directory, tmp_path):
    shutil.copytree(llava_directory, tmp_path / "other")
    settings = json.loads((tmp_path / "other" / "tokenizer_config.json").read_text())
    settings["bos_token"] = "<unk>"
    (tmp_path / "other" / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(UserError, match=r"^the tokenizer has \d+ tokens, begins with 0 and ends with 2, but backbone "):
        assemble(make_asked({"tokenizer": str(tmp_path / "other")}))


def test_questions_that_do_not_compare_with_images_are_refused_unless_they_are_projected(make_asked, tmp_path):
    folder = small_llava.written(tmp_path / "wide", text_width=24)
    with pytest.raises(
        UserError, match=r"^config\.problem\.text_feature is 'pooler', 24 numbers .* images have 16; use"
    ):
        assemble(make_asked({"backbone": str(folder)}))
    assert assemble(make_asked({"backbone": str(folder), "problem.text_feature": "projected"}))
