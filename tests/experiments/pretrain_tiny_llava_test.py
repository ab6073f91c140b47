"""Pretraining the tiny LLaVA: what a row shows to each conversation, going on, and what is written."""

import importlib.util
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lpi_jax.data.questions.general import general
from lpi_jax.data.questions.general_forms import Said, finished
from lpi_jax.models import weights as clip_weights
from lpi_jax.models.llava import weights
from lpi_jax.models.llava.config import LlamaConfig, LlavaConfig
from lpi_jax.models.llava.llava import Inputs, LLaVA, init_params
from lpi_jax.models.llava.splice import IGNORE, IMAGE
from lpi_jax.problems.instruction import conversation
from tests.support import llama_tokenizers

sys.path.insert(0, str(Path(__file__).parents[2] / "experiments" / "pretrain_tiny_llava"))

import evaluate
import network
import rows as rows_module
import training
import variants
from rows import AHEAD, BOS, PATCHES, Mix, Packing, Pieces

spec = importlib.util.spec_from_file_location("pretrain_tiny_llava", Path(training.__file__).parent / "pretrain.py")
pretrain = importlib.util.module_from_spec(spec)  # another script is called pretrain too
spec.loader.exec_module(pretrain)

TABLE = (variants.COUNT + variants.MISLEADING) * variants.LENGTH
CLIP = pretrain.ASSETS / "tiny_clip"
PIECES = 440


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(str(llama_tokenizers.written(tmp_path_factory.mktemp("t"), pieces=PIECES)))


@pytest.fixture(scope="module")
def model():
    """A random LLaVA behind the tiny CLIP's tower, and its tree."""
    clip_config, clip = clip_weights.load(CLIP)
    config = LlavaConfig(clip_config, LlamaConfig(PIECES, 32, 2, 2, 2, 48), max_length=256)
    params = init_params(config, jax.random.key(0))
    return LLaVA(config), {**params, **{name: clip[name] for name in params.keys() & clip.keys()}}


STEPS = 4
ROUNDS = (training.Round(STEPS // 2, 2e-3), training.Round(STEPS // 2, 1e-3))


def parts(params):
    trained = {name: params[name] for name in network.TRAINED}
    return trained, {name: part for name, part in params.items() if name not in trained}


@pytest.fixture(scope="module")
def packing(tokenizer):
    return Packing(Pieces(tokenizer), 3, 60, 36)


def test_pieces_are_the_tokenizers(tokenizer):
    for record in general(0, 20).records:
        for text in record.turns[0]:
            assert Pieces(tokenizer)(text, add_special_tokens=False)["input_ids"] == tokenizer.encode(
                text, add_special_tokens=False
            )


@pytest.fixture(scope="module")
def led(tokenizer):
    """Rows of made-up tasks alone."""
    return Packing(Pieces(tokenizer), 12, 60, 36).batch(4, Mix(varied=1.0))


@pytest.mark.parametrize("kind", ["plain", "led"])
def test_a_conversation_in_a_row_is_read_as_in_a_row_of_its_own(kind, model, packing, led):
    llava, params = model
    batch = {"plain": packing.batch(11), "led": led}[kind]
    width = llava.config.llama.width
    table = np.random.default_rng(0).normal(size=(TABLE, width)).astype(np.float32)
    given = jax.jit(lambda rows: llava.apply({"params": params}, rows, jnp.asarray(table), method=network.logits))
    logits = np.asarray(given(batch))
    most = (1 + variants.MOST_AHEAD) * variants.LENGTH
    found, told, images, sees, prompts, shown = [], [], [], [], [], []
    for row, number in sorted({(row, int(n)) for row, own in enumerate(batch.group) for n in own if n > 0}):
        own = np.flatnonzero(batch.group[row] == number)
        sees.append(int(batch.sees[row, own[0]]))
        ahead = batch.ids[row, 1 : batch.start[row]] if sees[-1] != BOS else np.zeros(0, np.int32)
        image = [IMAGE] * (sees[-1] == PATCHES)
        before = [1, *ahead[ahead < PIECES].tolist(), *image]
        told.append(conversation.Encoded([*before, *batch.ids[row, own].tolist()], []))
        numbers = ahead[ahead >= PIECES] - PIECES
        prompts.append(np.concatenate([table[numbers], np.zeros((most - len(numbers), width), np.float32)]))
        shown.append(np.arange(most) < len(numbers))
        found.append(logits[row, own])
        images.append(batch.images[row])
    assert set(sees) == ({PATCHES, BOS} if kind == "plain" else {PATCHES, AHEAD})
    assert any(one.any() for one in shown) == (kind == "led")

    alone = conversation.pad(told)
    inputs = Inputs(
        alone.ids,
        network.pixels(np.stack(images)),
        has_image=np.asarray(sees) == PATCHES,
        length=alone.length,
        prompts=np.stack(prompts)[:, None],
        present=np.stack(shown),
    )
    expected = jax.jit(lambda one: llava.apply({"params": params}, **one, method="logits"))(inputs._asdict())
    ends = np.asarray(expected.mask).sum(axis=1)
    for k, (own, end) in enumerate(zip(found, ends, strict=True)):
        np.testing.assert_allclose(own, expected.logits[k, end - len(own) : end], atol=2e-5)


def test_rows_hold_general_samples_and_further_questions(packing, tokenizer):
    batch, split = packing.batch(6), general(6, 4, 60)
    for one, again in zip(batch, packing.batch(6), strict=True):
        np.testing.assert_array_equal(one, again)
    supervised = batch.labels != IGNORE
    said = tokenizer.decode(batch.ids[0][supervised[0]])
    first = next(record for record in split.records if record.has_image)
    assert said.startswith(first.turns[0][1] + "</s>")
    np.testing.assert_array_equal(batch.labels[supervised], batch.ids[supervised])


def test_held_out_pictures_are_refused(monkeypatch):
    images = general(0, 30, 60).load.__self__
    index = next(k for k, picture in enumerate(images.pictures) if picture is not None)
    rows_module.scene_of(images, index)
    monkeypatch.setattr(type(images.pictures[index]), "held_out", True)
    with pytest.raises(ValueError, match="validation"):
        rows_module.scene_of(images, index)


def test_relations_and_crowds_are_found_again():
    split = general(1, 200, 60)
    beside = crowds = 0
    for index, record in enumerate(split.records):
        if not record.has_image:
            continue
        scene = rows_module.scene_of(split.load.__self__, index)
        asked = record.turns[0][0]
        if "seen from" in asked or "Which way" in asked:
            assert scene.relation
            beside += 1
        if "how many" in asked.lower() or "amount" in asked:
            assert scene.crowd
            crowds += 1
    assert beside and crowds


def test_training_that_was_ended_goes_on_as_if_it_had_not(model, packing, tmp_path, monkeypatch):
    llava, params = model
    _, frozen = parts(params)
    monkeypatch.setattr(training, "EVERY", 2)
    batches = [packing.batch(step) for step in range(4)]

    def ended(step):
        if step == 3:
            raise KeyboardInterrupt
        return batches[step]

    def train(make, work):
        return training.train(llava, frozen, make, batches[0], ROUNDS, 0, work)

    whole = train(batches.__getitem__, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(ended, tmp_path / "parts")
    resumed = train(batches.__getitem__, tmp_path / "parts")
    assert [point.step for point in resumed.curve] == [2, 4]
    assert resumed.curve == whole.curve
    jax.tree.map(np.testing.assert_array_equal, resumed.trained, whole.trained)


def test_a_box_counts_for_more_than_a_word_and_for_less_than_its_tokens(model, packing):
    llava, params = model
    trained, frozen = parts(params)
    batch = packing.batch(5)
    logits = jax.jit(lambda rows: llava.apply({"params": params}, rows, method=network.logits))(batch)
    likely = np.asarray(jax.nn.log_softmax(logits))
    answers, lengths = [], []
    for row, number in ((row, number) for row in range(packing.count) for number in range(1, rows_module.MOST + 2)):
        asked = np.flatnonzero((batch.group[row] == number) & (batch.labels[row] != IGNORE))
        if len(asked):
            answers.append(np.mean([-likely[row, place - 1, batch.labels[row, place]] for place in asked]))
            lengths.append(len(asked))
    assert len(answers) > packing.count and max(batch.group.reshape(-1)) <= rows_module.MOST
    assert max(lengths) > 2 * min(lengths)
    expected = np.average(answers, weights=np.sqrt(lengths))
    np.testing.assert_allclose(network.loss(trained, frozen, llava, batch), expected, rtol=1e-5)


def test_made_up_tasks_stand_behind_their_own_prompt_which_is_last(led, tokenizer):
    words = len(tokenizer)
    for ids, start in zip(led.ids, led.start, strict=True):
        prompts = [int(one) - words for one in ids[1 : int(start)] if one >= words]
        sets = np.reshape(prompts, (-1, variants.LENGTH))
        assert 1 <= len(sets) <= 1 + variants.MOST_AHEAD
        assert (sets % variants.LENGTH == np.arange(variants.LENGTH)).all()
        assert (sets // variants.LENGTH == sets[:, :1] // variants.LENGTH).all() and sets.max() < variants.COUNT * 10
        assert (ids[int(start) :] < words).all()


def test_prompts_of_made_up_tasks_are_read_and_trained(model, led):
    llava, params = model
    trained, frozen = parts(params)
    shape = (TABLE, llava.config.llama.width)
    prefixes = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    gradient = jax.grad(network.loss)({**trained, network.PREFIXES: prefixes}, frozen, llava, led)
    moved = np.abs(gradient[network.PREFIXES]).max(axis=1) > 0
    used = {int(one) - PIECES for one in led.ids.reshape(-1) if one >= PIECES}
    assert set(np.flatnonzero(moved)) == used
    given = jax.jit(lambda table: llava.apply({"params": params}, led, table, method=network.logits))
    assert np.abs(given(prefixes) - given(0 * prefixes)).max() > 1e-3


def test_misleading_prompts_stand_before_others_and_are_moved_the_other_way(model, tokenizer):
    llava, params = model
    trained, frozen = parts(params)
    batch = Packing(Pieces(tokenizer), 6, 60, 36).batch(4, Mix(varied=1.0, misled=1.0))
    first = PIECES + variants.COUNT * variants.LENGTH  # where the ids of misleading prompts begin
    ahead = [
        [one for one in ids[1 : int(start)] if one >= PIECES] for ids, start in zip(batch.ids, batch.start, strict=True)
    ]
    assert any(len(one) > variants.LENGTH for one in ahead)
    for one in ahead:
        assert all(k >= first for k in one[: -variants.LENGTH]) and all(k < first for k in one[-variants.LENGTH :])

    used = sorted({int(k) for one in ahead for k in one if k >= first})
    free = [k for k in range(PIECES, first) if k not in {int(k) for one in ahead for k in one}][: len(used)]
    table = np.random.default_rng(0).normal(size=(TABLE, llava.config.llama.width)).astype(np.float32)
    table[np.asarray(free) - PIECES] = table[np.asarray(used) - PIECES]
    plain = batch._replace(ids=np.vectorize(dict(zip(used, free, strict=True)).get)(batch.ids, batch.ids))
    loss = jax.value_and_grad(lambda given, rows: network.loss({**trained, "prefixes": given}, frozen, llava, rows))
    (found, turned), (expected, straight) = loss(jnp.asarray(table), batch), loss(jnp.asarray(table), plain)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    turned, straight = turned[np.asarray(used) - PIECES], straight[np.asarray(free) - PIECES]
    assert np.abs(straight).max() > 1e-6
    np.testing.assert_allclose(turned, -straight, rtol=1e-4, atol=1e-8)


@pytest.fixture(scope="module")
def scenes():
    split = general(5, 80, 60)
    return [rows_module.scene_of(split.load.__self__, k) for k, one in enumerate(split.records) if one.has_image]


def test_a_made_up_task_is_always_the_same_and_asks_only_what_a_scene_has(scenes):
    met = set()
    for number, scene in ((n, scene) for n in range(variants.COUNT) for scene in scenes[:12]):
        task = variants.variant(number)
        if not task.core.fits(scene):
            continue
        met.add(number)
        rng = np.random.default_rng(number)
        filled, answer = task.core.ask(rng, scene)
        assert all(filled) and answer
        if task.core.answers:
            assert sum(f" {one} " in f" {answer} " for one in task.core.answers) == 1
        ((asked, said),) = task.turns(np.random.default_rng(number), scene, 1)
        assert all(word in asked for word in task.core.ask(np.random.default_rng(number), scene)[0])
        assert said.startswith(task.around[0]) and said.endswith(task.around[1])
        if task.sorts:
            assert any(word in said for word in task.sorts)
        for _, said in task.facts(rng, 3):
            assert task.core.fact and said.startswith(task.around[0])
    assert len(met) > 0.9 * variants.COUNT
    assert variants.variant(7) == variants.variant.__wrapped__(7)


def test_words_for_answers_are_as_many_as_the_answers():
    tasks = [variants.variant(number) for number in range(variants.COUNT)]
    mapped = [task for task in tasks if task.words]
    assert len(mapped) > 40
    for task in mapped:
        assert len(set(task.words.values())) == len(task.words) >= 2


def test_what_is_told_in_front_is_not_told_behind_the_questions(tokenizer):
    packing, told = Packing(Pieces(tokenizer), 3, 60, 36), 0
    for seed in range(60):
        ids, given = packing.ahead(np.random.default_rng(seed))
        front = tokenizer.decode(ids)
        assert all(form.lines[0] in front for form in given.values())
        told += any(form.lines[0] for form in given.values())
        said = Said("What?", ("three",), "number")
        question, (answer,) = finished(np.random.default_rng(seed), said, given)
        assert "number" not in given or (question == "What?" and answer == given["number"].say("three"))
    assert 10 < told < 40


def test_a_told_task_is_told_whole(scenes):
    rng = np.random.default_rng(0)
    for scene in scenes:
        task = variants.fresh(rng, scene)
        told = task.told(rng).lower()
        assert any(name in told for name in task.core.called) and not task.sorts
        assert all(f"{new} for {old}" in told for old, new in task.words.items())
        assert all(f"with {word}" in told for word in task.around if word)
        ((asked, said),) = task.turns(rng, scene, 1, "As told.")
        assert asked.endswith("\nAs told.") and task.core.fits(scene) and said


def test_what_is_told_stands_where_prompts_stand_or_behind_every_question(tokenizer):
    batch = Packing(Pieces(tokenizer), 16, 60, 36).batch(4, Mix(varied=1.0, told=1.0))
    called = [name.capitalize() for core in variants.CORES.values() for name in core.called]
    ahead = behind = 0
    for row, start in enumerate(batch.start.tolist()):
        in_front = tokenizer.decode([k for k in batch.ids[row, 1:start].tolist() if k < PIECES])
        asked = [tokenizer.decode(batch.ids[row][batch.group[row] == n]) for n in range(1, batch.group[row].max() + 1)]
        if any(f"{name}." in in_front for name in called):
            ahead += 1
            assert not any(f"{name}." in text for text in asked for name in called)
        else:
            behind += 1
            assert all(any(f"{name}." in text for name in called) for text in asked)
    assert ahead > 2 and behind > 2


def test_the_recipe_writes_a_backbone_that_loads_and_a_record(tmp_path, monkeypatch):
    for name, value in {"WIDTH": 32, "LAYERS": 1, "HEADS": 2, "MLP": 48, "BATCH": 2}.items():
        monkeypatch.setattr(pretrain, name, value)
    monkeypatch.setattr(pretrain.pieces, "SAMPLES", 200)
    monkeypatch.setattr(pretrain.pieces, "PIECES", PIECES)
    monkeypatch.setattr(pretrain, "VICUNA", "")
    monkeypatch.setattr(evaluate, "MAX_NEW", 3)
    out = tmp_path / "out"
    folders = ["--out", str(out), "--record", str(tmp_path), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", ["pretrain.py", "--steps", "3", "--questions=10", "--val=2", *folders])
    pretrain.main()
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["steps"] == 3 and sum(kind["count"] for kind in report["held_out"].values()) == 10
    assert len(report["stream_before_learning"]["no system text"]) == 8
    assert {file.name for file in tmp_path.iterdir()} >= {"loss.csv", "loss.png"}

    config, params = weights.load(out, CLIP)
    assert (config.llama.width, config.max_length, config.feature_layer) == (32, pretrain.MAX_LENGTH, -2)
    assert report["sha256"] == clip_weights.fingerprint(params)
    last = training.resumed(tmp_path / "work", blank(config)).trained
    assert last.pop(network.PREFIXES).shape == (TABLE, 32)
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf, np.float16).astype(np.float32), last)
    trained, frozen = parts(params)
    jax.tree.map(np.testing.assert_array_equal, trained, rounded)
    ids = np.asarray([[1, 300, IMAGE, 301, 302]])
    images = np.random.default_rng(0).standard_normal((1, 60, 60, 3), np.float32)
    given, expected = (
        LLaVA(config).apply({"params": {**frozen, **tree}}, ids, images, method="logits").logits
        for tree in (trained, rounded)
    )
    np.testing.assert_array_equal(given, expected)


def blank(config):
    trained = {name: init_params(config, jax.random.key(0))[name] for name in network.TRAINED}
    trained[network.PREFIXES] = np.zeros((TABLE, config.llama.width), np.float32)
    return training.Progress(0, 0.0, trained, training.optimiser(ROUNDS).init(trained), [])


def test_answers_that_mean_the_same_count(tokenizer):
    questions = evaluate.held_out(3, 120, 60)
    captions = [question for question in questions if question.kind == "caption"]
    assert captions and any(len(question.answers) > 1 for question in captions)
    right = evaluate.by_kind(lambda texts, images: [min(q.answers) for q in questions], questions)
    assert all(found["exact"] == 100.0 for found in right.values())
    assert right["box"]["found"] == 100.0
