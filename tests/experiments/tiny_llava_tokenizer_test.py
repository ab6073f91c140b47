"""The tiny LLaVA's tokenizer: what the ids are, that digits stand alone, and that every task can be said."""

import json

import pytest

from lpi_jax.data.questions.source import Options, build
from tests.support import llama_tokenizers


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return llama_tokenizers.written(tmp_path_factory.mktemp("tokenizer"), samples=400, pieces=512)


@pytest.fixture(scope="module", params=["PreTrainedTokenizerFast", "LlamaTokenizerFast", "AutoTokenizer"])
def tokenizer(request, folder):
    import transformers

    return getattr(transformers, request.param).from_pretrained(str(folder), local_files_only=True)


def ids(tokenizer, text):
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def test_special_ids_are_llamas(tokenizer):
    assert [tokenizer.unk_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id] == [
        0,
        1,
        2,
        0,
    ]
    assert len(tokenizer) == 512
    assert tokenizer.convert_tokens_to_ids(["<0x00>", "<0x0A>", "<0xFF>"]) == [3, 13, 258]
    assert tokenizer("USER:")["input_ids"] == [1, *ids(tokenizer, "USER:")]


def test_numbers_are_read_digit_by_digit(tokenizer):
    pieces = tokenizer.convert_ids_to_tokens(ids(tokenizer, "[0.12, 0.40] 37"))
    assert pieces == ["▁", *"[0.12,", "▁", *"0.40]", "▁", *"37"]
    learnt = [piece for piece in tokenizer.get_vocab() if not piece.startswith("<") and any(c.isdigit() for c in piece)]
    assert sorted(learnt) == list("0123456789")


def test_whatever_a_task_says_comes_back_as_it_was(tokenizer):
    for task in build(Options(train=30, val=10)).tasks:
        for record in (*task.train.records, *task.val.records):
            for text in (*record.turns[0], *record.answers):
                said = ids(tokenizer, text)
                assert tokenizer.unk_token_id not in said
                assert tokenizer.decode(said) == text


def test_the_script_learns_the_same_pieces_again(folder, tmp_path):
    again = llama_tokenizers.written(tmp_path, samples=400, pieces=512)
    names = ("tokenizer.json", "tokenizer_config.json")
    assert [json.loads((again / n).read_text()) for n in names] == [json.loads((folder / n).read_text()) for n in names]
