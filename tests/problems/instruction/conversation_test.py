"""The chat template in ids and labels, on a tokenizer as LLaMA has it, and what CLIP reads of a question."""

import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.models.llava.splice import IGNORE, IMAGE
from lpi_jax.problems.instruction.conversation import (
    PAD,
    VICUNA,
    Encoded,
    after_first_newline,
    encode,
    guidance_text,
    pad,
    prompt,
)
from tests.reference import conversation as reference
from tests.support import llama_tokenizers

ONE = (("How many stars are there?\nReply with one figure.", "3"),)
TWO = (*ONE, ("Is there a box?", "yes, [0.10, 0.45]"))
BOS, EOS, NEWLINE = 1, 2, 13


@pytest.fixture(scope="module", params=["PreTrainedTokenizerFast", "LlamaTokenizerFast"])
def tokenizer(request, tmp_path_factory):
    """The same files, read as a tokenizer of any kind and as LLaMA's."""
    import transformers

    folder = llama_tokenizers.written(tmp_path_factory.mktemp("tokenizer"))
    return getattr(transformers, request.param).from_pretrained(str(folder), local_files_only=True)


def pieces(tokenizer, ids):
    return ["<image>" if i == IMAGE else tokenizer.convert_ids_to_tokens(i) for i in ids]


def whole(tokenizer, text):
    """Ids of a text by the release's rule: chunks around <image> tokenised alone, BOS only in front of the first."""
    first, *rest = (tokenizer(chunk)["input_ids"] for chunk in text.split("<image>"))
    assert first[0] == BOS
    for chunk in rest:
        first = [*first, IMAGE, *chunk[1:]]
    return first


def supervised(tokenizer, encoded):
    return pieces(tokenizer, [label for label in encoded.labels if label != IGNORE])


# ---- ids and labels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", [VICUNA, "Be brief.", ""])
def test_ids_are_those_of_the_releases_template(tokenizer, system):
    (question, answer), opening = ONE[0], f"{system} " if system else ""
    with_image = f"{opening}USER: <image>\n{question} ASSISTANT:"
    without = f"{opening}USER: {question} ASSISTANT:"
    assert prompt(ONE, True, tokenizer, system) == whole(tokenizer, with_image)
    assert prompt(ONE, False, tokenizer, system) == whole(tokenizer, without)
    assert encode(ONE, True, tokenizer, system).ids == whole(tokenizer, f"{with_image} {answer}</s>")
    assert encode(ONE, False, tokenizer, system).ids == whole(tokenizer, f"{without} {answer}</s>")


def test_a_space_piece_stands_before_the_image_and_a_space_and_a_newline_behind_it(tokenizer):
    ids = encode(ONE, True, tokenizer).ids
    space, at = tokenizer.convert_tokens_to_ids("▁"), ids.index(IMAGE)
    assert ids[0] == BOS and ids[-1] == EOS and ids.count(IMAGE) == 1
    assert ids[at - 1] == space and ids[at + 1 : at + 3] == [space, NEWLINE]
    assert pieces(tokenizer, ids[at - 3 : at]) == ["▁USER", ":", "▁"]
    decoded = tokenizer.decode([PAD if i == IMAGE else i for i in ids], skip_special_tokens=True)
    assert f"USER:  \n{ONE[0][0]} ASSISTANT: 3" in decoded.replace("<unk>", "")


@pytest.mark.parametrize("has_image", [True, False])
def test_only_answers_and_their_ends_are_supervised(tokenizer, has_image):
    encoded = encode(TWO, has_image, tokenizer)
    assert len(encoded.ids) == len(encoded.labels)
    assert all(label in (IGNORE, i) for i, label in zip(encoded.ids, encoded.labels, strict=True))
    first, second = supervised(tokenizer, encode(ONE, has_image, tokenizer)), supervised(tokenizer, encoded)
    assert first == ["▁", "3", "</s>"]  # the blank behind the colon is a piece of the answer
    assert second[:3] == first and second[-1] == "</s>" and second.count("</s>") == 2
    assert "".join(second[3:-1]) == "▁yes,▁[0.10,▁0.45]"
    masked = [i for i, label in zip(encoded.ids, encoded.labels, strict=True) if label == IGNORE]
    assert pieces(tokenizer, masked)[-1] == ":"


def test_a_further_round_starts_like_a_text_of_its_own(tokenizer):
    ids, first = encode(TWO, True, tokenizer).ids, encode(ONE, True, tokenizer).ids
    assert ids[: len(first)] == first
    assert pieces(tokenizer, ids[len(first) : len(first) + 2]) == ["▁USER", ":"]
    text = f"{VICUNA} USER: <image>\n{ONE[0][0]} ASSISTANT: 3</s>USER: {TWO[1][0]} ASSISTANT: {TWO[1][1]}</s>"
    assert ids == whole(tokenizer, text)


def test_a_prompt_is_the_beginning_of_what_is_learnt(tokenizer):
    for turns in (ONE, TWO):
        asked, learnt = prompt(turns, True, tokenizer), encode(turns, True, tokenizer)
        assert learnt.ids[: len(asked)] == asked and learnt.labels[len(asked) - 1] == IGNORE
        assert learnt.labels[len(asked) :] == learnt.ids[len(asked) :]
    unanswered = (*ONE, (TWO[1][0], ""))
    assert prompt(unanswered, True, tokenizer) == prompt(TWO, True, tokenizer)


def test_an_empty_answer_supervises_its_blank_and_its_end(tokenizer):
    assert supervised(tokenizer, encode((("Why?", ""),), False, tokenizer)) == ["▁", "</s>"]


def test_what_no_sample_says_is_spelled_by_bytes(tokenizer):
    encoded = encode((("Où est-ce, ☃?", "là"),), True, tokenizer)
    assert tokenizer.unk_token_id not in encoded.ids
    assert tokenizer.decode([label for label in encoded.labels if label != IGNORE][:-1]).strip() == "là"


def test_a_conversation_without_a_round_is_refused(tokenizer):
    with pytest.raises(UserError, match="no round"):
        encode((), True, tokenizer)


def test_a_tokenizer_that_joins_question_and_answer_is_refused():
    class Words:
        """Splits at blanks, and swallows the one behind a colon."""

        bos_token_id, eos_token_id = BOS, EOS

        def __call__(self, text, add_special_tokens):
            return {"input_ids": [sum(map(ord, word)) for word in text.replace(": ", ":").split(" ")]}

    with pytest.raises(UserError, match="joins ' ASSISTANT:' to the answer '3'"):
        encode(ONE, False, Words())


# ---- batches ---------------------------------------------------------------------------------------------------------


def test_rows_are_padded_on_the_right():
    batch = pad([Encoded([1, IMAGE, 5], [IGNORE, IGNORE, 5]), Encoded([1, 7], [IGNORE, 7])], longest=4)
    np.testing.assert_array_equal(batch.ids, [[1, IMAGE, 5, PAD], [1, 7, PAD, PAD]])
    np.testing.assert_array_equal(batch.labels, [[IGNORE, IGNORE, 5, IGNORE], [IGNORE, 7, IGNORE, IGNORE]])
    np.testing.assert_array_equal(batch.length, [3, 2])
    assert {array.dtype for array in batch} == {np.dtype(np.int32)}
    assert pad([Encoded([1, 2, 3], [1, 2, 3])]).ids.shape == (1, 3)


def test_a_row_that_does_not_fit_is_refused():
    with pytest.raises(UserError, match="3 token ids; expected at most 2"):
        pad([Encoded([1, 2, 3], [1, 2, 3])], longest=2)


# ---- what CLIP reads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "decoded",
    [
        "...USER:  \nQ1\nSuffix ASSISTANT: a",
        "...USER: one line ASSISTANT: a",
        "...USER: first\nsecond\nthird ASSISTANT: a",
        "...USER:  \nIs the ASSISTANT right? ASSISTANT: a",
        "",
    ],
)
def test_the_text_behind_the_first_newline_is_the_references(decoded):
    assert after_first_newline(decoded) == reference.question_text(decoded)


@pytest.mark.parametrize("has_image", [True, False])
@pytest.mark.parametrize("system", [VICUNA, "Two\nlines.", ""])
@pytest.mark.parametrize("turns", [ONE, TWO, (("One line?", "no"),), (("Is the ASSISTANT\nright?", "yes"),)])
def test_the_released_rule_reads_what_is_decoded_from_the_ids(tokenizer, turns, has_image, system):
    ids = encode(turns, has_image, tokenizer, system).ids
    decoded = tokenizer.decode([PAD if i == IMAGE else i for i in ids], skip_special_tokens=True)
    expected = reference.question_text(decoded)
    assert guidance_text(turns[0][0], has_image, "released", system) == expected


def test_the_intended_rule_reads_the_question_itself():
    for text in (ONE[0][0], "One line?", "Is the ASSISTANT right?"):
        assert guidance_text(text, False, "intended") == guidance_text(text, True, "intended") == text
    assert guidance_text("One line?", False, "released") == ""
    assert guidance_text("One line?", True, "released") == "One line?"
    assert guidance_text("One\ntwo\nthree?", False, "released") == "two\nthree?"
