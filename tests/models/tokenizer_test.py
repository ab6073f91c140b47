"""The tokenizer: rows as the towers expect them, nothing silent, and captions cut without changing their features."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models, normalizers, pre_tokenizers, trainers

from lpi_jax.errors import UserError
from lpi_jax.models.tokenizer import END, START, TRIM_LENGTHS, Tokenizer, trim

CAPTIONS = ["a red circle left of a blue square", "a small green star above a big red circle", "x x"]


@pytest.fixture(scope="module")
def vocabulary():
    """Token -> id and merges of a small byte-level BPE, as CLIP's: words end in </w>, the special tokens come last."""
    backend = Backend(models.BPE(end_of_word_suffix="</w>"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=600, end_of_word_suffix="</w>", initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CAPTIONS * 9, trainer)
    model = json.loads(backend.to_str())["model"]
    tokens = dict(model["vocab"])
    for token in [*(f"{byte}</w>" for byte in alphabet), START, END]:
        tokens.setdefault(token, len(tokens))
    return tokens, [" ".join(merge) for merge in model["merges"]]


@pytest.fixture
def directory(tmp_path, vocabulary):
    write(tmp_path, *vocabulary)
    return tmp_path


def write(directory, tokens, merges):
    (directory / "vocab.json").write_text(json.dumps(tokens))
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory, vocabulary):
    directory = tmp_path_factory.mktemp("tokenizer")
    write(directory, *vocabulary)
    return Tokenizer.load(directory)


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_a_row_is_start_placeholders_caption_end_zeros(tokenizer, vocabulary):
    tokens, _ = vocabulary
    assert tokenizer.vocab_size == len(tokens)
    ids, cut = tokenizer.encode(["A red  Circle"], placeholders=3, context_length=12)
    caption = [tokens[f"{word}</w>"] for word in ("a", "red", "circle")]
    placeholder = tokens["x</w>"]
    assert ids.tolist() == [[tokens[START], *[placeholder] * 3, *caption, tokens[END], 0, 0, 0, 0]]
    assert ids.dtype == np.int32
    assert cut == 0
    assert tokens[END] == ids.max() == tokenizer.vocab_size - 1


def test_it_reads_as_transformers_reads(directory, tokenizer):
    from transformers import CLIPTokenizerFast

    theirs = CLIPTokenizerFast.from_pretrained(str(directory))
    for caption in [*CAPTIONS, "An UNKNOWN zebra's café, naïve 漢字 42!", "  many   spaces "]:
        expected = theirs(caption)["input_ids"]
        ids, _ = tokenizer.encode([caption], context_length=len(expected) + 3)
        assert ids[0].tolist() == [*expected, 0, 0, 0]
        expected = theirs("X X " + caption)["input_ids"]
        ids, _ = tokenizer.encode([caption], placeholders=2, context_length=len(expected))
        assert ids[0].tolist() == expected


def test_long_captions_keep_their_end_token_and_are_counted(tokenizer, vocabulary):
    tokens, _ = vocabulary
    captions = ["red " * 30, "red " * 6, "red " * 7]
    ids, cut = tokenizer.encode(captions, placeholders=2, context_length=10)
    assert cut == 2
    assert ids[:, -1].tolist() == [tokens[END]] * 3
    assert (ids[:, 3:9] == tokens["red</w>"]).all()
    assert tokenizer.encode(captions)[1] == 0


def test_a_special_token_inside_a_caption_does_not_end_it(tokenizer, vocabulary):
    tokens, _ = vocabulary
    ids, _ = tokenizer.encode([f"red {END} circle {START} star"], context_length=8)
    words = [tokens[f"{word}</w>"] for word in ("red", "circle", "star")]
    assert ids.tolist() == [[tokens[START], *words, tokens[END], 0, 0, 0]]


def test_captions_without_a_token_and_contexts_without_room_are_named(tokenizer):
    for caption in ("", "  \n", END):
        with pytest.raises(UserError, match="has no token"):
            tokenizer.encode(["red", caption])
    with pytest.raises(UserError, match="16 placeholders leave no room for a caption in 18 tokens"):
        tokenizer.encode(["red"], placeholders=16, context_length=18)
    ids, cut = tokenizer.encode([], context_length=9)
    assert ids.shape == (0, 9)
    assert cut == 0


# ---- guards ----------------------------------------------------------------------------------------------------------


def test_a_tokenizer_json_alone_is_enough(tmp_path, directory, tokenizer):
    from transformers import CLIPTokenizerFast

    CLIPTokenizerFast.from_pretrained(str(directory)).backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "vocab.json").unlink()
    (tmp_path / "merges.txt").unlink()
    other = Tokenizer.load(tmp_path)
    np.testing.assert_array_equal(other.encode(CAPTIONS, 4)[0], tokenizer.encode(CAPTIONS, 4)[0])


def test_missing_and_damaged_files_are_named(directory):
    with pytest.raises(UserError, match="is no directory"):
        Tokenizer.load(directory / "vocab.json")
    (directory / "vocab.json").write_text("{")
    with pytest.raises(UserError, match="does not hold a readable CLIP tokenizer"):
        Tokenizer.load(directory)
    (directory / "merges.txt").unlink()
    with pytest.raises(UserError, match=r"has no tokenizer; expected vocab\.json and merges\.txt"):
        Tokenizer.load(directory)


def test_a_vocabulary_of_three_tokens_is_refused(directory):
    write(directory, {START: 0, "a</w>": 1, END: 2}, [])
    with pytest.raises(UserError, match="a vocabulary of 3 tokens"):
        Tokenizer.load(directory)


def test_another_vocabulary_than_the_files_hold_is_refused(directory, monkeypatch, vocabulary):
    from transformers import CLIPTokenizerFast

    tokens, _ = vocabulary
    read = CLIPTokenizerFast.from_pretrained(str(directory))
    write(directory, {**tokens, "one more": len(tokens)}, [])
    monkeypatch.setattr(CLIPTokenizerFast, "from_pretrained", lambda *_, **__: read)
    with pytest.raises(UserError, match=f"read {len(tokens)} tokens, but the files hold {len(tokens) + 1} others"):
        Tokenizer.load(directory)
    monkeypatch.setattr(CLIPTokenizerFast, "from_pretrained", lambda *_, **__: CLIPTokenizerFast())
    with pytest.raises(UserError, match=r"a vocabulary of [23] tokens"):
        Tokenizer.load(directory)


def test_special_tokens_must_be_there_and_the_end_token_last(directory, vocabulary):
    tokens, merges = vocabulary
    swapped = {**tokens, START: tokens[END], END: tokens[START]}
    write(directory, swapped, merges)
    with pytest.raises(UserError, match="captions are pooled at the highest id"):
        Tokenizer.load(directory)
    write(directory, {token: i for i, token in enumerate(key for key in tokens if key != START)}, merges)
    with pytest.raises(UserError, match=r"lacks the special token <\|startoftext\|>"):
        Tokenizer.load(directory)


def test_the_placeholder_must_be_one_token(directory, vocabulary):
    tokens, merges = vocabulary
    tokens = [token for token in tokens if token != "x</w>"]
    write(directory, {token: i for i, token in enumerate(tokens)}, [m for m in merges if m != "x </w>"])
    tokenizer = Tokenizer.load(directory)
    tokenizer.encode(["red"])
    with pytest.raises(UserError, match="placeholder word 'X' must be one token of the vocabulary, but is unknown"):
        tokenizer.encode(["red"], placeholders=1)


def test_importing_the_models_is_light():
    code = (
        "import sys; from lpi_jax.models import clip, tokenizer, weights;"
        "print([name for name in ('torch', 'tensorflow', 'sklearn', 'transformers', 'huggingface_hub')"
        " if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


# ---- trimming --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("longest", "length", "expected"),
    [
        *[
            (3, 77, 16),
            (16, 77, 16),
            (17, 77, 24),
            (33, 77, 40),
            (48, 77, 48),
            (49, 77, 64),
            (65, 77, 77),
            (77, 77, 77),
        ],
        *[(3, 12, 12), (30, 36, 32), (34, 36, 36), (90, 120, 120), (70, 120, 77)],
    ],
)
def test_captions_are_cut_to_the_longest_rounded_up(longest, length, expected):
    ids = np.full((3, length), 5, np.int32)
    ids[[0, 1, 2], [2, longest - 1, 1]] = 9
    short = trim(ids)
    assert short.shape == (3, expected)
    assert short.base is ids
    assert expected in (*TRIM_LENGTHS, length)
    np.testing.assert_array_equal(short.argmax(1), ids.argmax(1))
