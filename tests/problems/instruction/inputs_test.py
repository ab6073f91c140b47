"""Samples as arrays: conversations, questions and images, in training batches of few shapes."""

import numpy as np
import pytest
from PIL import Image

from lpi_jax.data.batches import Plan, training_batches
from lpi_jax.data.instructed import Instructed
from lpi_jax.data.stream import Split
from lpi_jax.data.transforms import CLIP_MEAN, CLIP_STD
from lpi_jax.errors import UserError
from lpi_jax.models.llava.splice import IGNORE, IMAGE
from lpi_jax.models.tokenizer import Tokenizer
from lpi_jax.problems.instruction import conversation
from lpi_jax.problems.instruction.options import Conversation
from lpi_jax.problems.instruction.pictures import MOST, Pictures, squared
from lpi_jax.problems.instruction.source import Conversations
from lpi_jax.problems.instruction.texts import Texts, fingerprint, load_tokenizer, room

RECORDS = (
    Instructed("0", (("How many stars?\nOne figure.", "3"),), ("3",)),
    Instructed("1", (("What is two and two?", "4"), ("And one more?", "5")), ("5",), has_image=False),
    Instructed("2", (("word " * 4000, "long"),), ("long",)),
    Instructed("3", (("Is there a box?", "yes"),), ("yes",)),
)
LONGEST = 96


@pytest.fixture(scope="module")
def llama(llava_directory):
    return load_tokenizer(llava_directory)


@pytest.fixture(scope="module")
def make_texts(llama, llava_directory):
    clip = Tokenizer.load(llava_directory / "clip")
    return lambda **options: Texts(llama, clip, 24, LONGEST, Conversation(**options))


@pytest.fixture(scope="module")
def source(make_texts):
    def load(index):
        return Image.new("RGB", (40, 20), (index, 0, 0))

    return Conversations(Split(RECORDS, load), make_texts(system=""), Pictures(8))


def test_a_batch_holds_every_sample_with_its_image_labels_and_question(source, make_texts, llama):
    (batch,) = training_batches(Plan({0: source}, 0, 4, 0), 0, 1)
    shapes = {name: part.shape for name, part in batch.items()}
    assert shapes == {
        "images": (4, 8, 8, 3),
        "has_image": (4,),
        "question_ids": (4, 24),
        "ids": (4, LONGEST),  # one of them is longer
        "labels": (4, LONGEST),
        "length": (4,),
    }
    order = [int(np.argmin([abs(r - length) for r in map(source.length, range(4))])) for length in batch["length"]]
    assert sorted(order) == [0, 1, 2, 3]
    for row, number in enumerate(order):
        record, length = RECORDS[number], batch["length"][row]
        whole = conversation.encode(record.turns, record.has_image, llama, "")
        assert batch["ids"][row, :length].tolist() == whole.ids[:LONGEST]
        assert batch["labels"][row, :length].tolist() == whole.labels[:LONGEST]
        assert (batch["labels"][row, length:] == IGNORE).all()
        assert batch["has_image"][row] == record.has_image == (IMAGE in batch["ids"][row])
        assert batch["images"][row].any() == record.has_image
        np.testing.assert_array_equal(batch["question_ids"][row], make_texts(system="").questions([record])[0])


def test_batches_have_few_lengths():
    assert [room(longest, 100) for longest in (1, 32, 33, 64, 97, 100)] == [32, 32, 64, 64, 100, 100]


def test_what_clip_reads_is_the_question_or_what_the_release_leaves_of_it(make_texts):
    intended, released = (make_texts(guidance_text=rule) for rule in ("intended", "released"))
    with_image, without = RECORDS[0], RECORDS[1]
    np.testing.assert_array_equal(intended.questions([with_image]), released.questions([with_image]))
    (ids,) = released.questions([without])
    assert np.count_nonzero(ids) == 2  # start and end alone
    assert np.count_nonzero(intended.questions([without])) > 2
    assert intended.questions([RECORDS[2]])[0].argmax() == 23  # cut, with its end


def test_a_question_that_is_too_long_is_cut_and_answers_are_read_back(make_texts, llama):
    texts = make_texts()
    assert len(texts.asked(RECORDS[2])) == LONGEST
    assert texts.count(RECORDS[2]) > LONGEST
    assert texts.asked(RECORDS[0])[0] == llama.bos_token_id
    said = [llama(f" {text}", add_special_tokens=False)["input_ids"] for text in ("three stars", "no")]
    ids = np.zeros((2, 20), np.int32)
    for row, own in zip(ids, said, strict=True):
        row[: len(own)], row[len(own)] = own, llama.eos_token_id
    assert texts.said(ids) == ["three stars", "no"]


def test_images_are_padded_or_cropped_and_normalised():
    image = Image.new("RGB", (30, 10), (255, 0, 0))
    square = np.asarray(squared(image))
    assert square.shape == (30, 30, 3)
    assert square[0, 0].tolist() == square[29, 29].tolist() == [122, 116, 104]
    assert (square[10:20] == (255, 0, 0)).all()
    red = (np.array([1, 0, 0]) - CLIP_MEAN) / CLIP_STD
    np.testing.assert_allclose(Pictures(10, "crop")(image), np.broadcast_to(red, (10, 10, 3)), rtol=1e-5)
    for fit in ("pad", "crop"):
        np.testing.assert_array_equal(Pictures(10, "published")(image, fit), Pictures(10, fit)(image))
        np.testing.assert_array_equal(Pictures(10, fit)(image, "crop"), Pictures(10, fit)(image))
    padded = Pictures(30)(image)
    assert padded.dtype == np.float32
    np.testing.assert_allclose(padded[:10], 0, atol=0.02)  # the mean colour is nearly nothing
    np.testing.assert_allclose(padded[10:20], np.broadcast_to(red, (10, 30, 3)), rtol=1e-5)


@pytest.mark.parametrize("size", [(100_000, 3), (3, 100_000), (MOST + 1, MOST // 2)])
def test_the_square_of_a_strip_has_no_more_pixels_than_an_image_may_have(size):
    assert squared(Image.new("RGB", size)).size == (MOST, MOST)


def test_a_tokenizer_is_named_by_what_it_is_made_of_and_refused_where_there_is_none(llama, llava_directory, tmp_path):
    assert fingerprint(llama) == fingerprint(load_tokenizer(llava_directory))
    with pytest.raises(UserError, match="does not hold a readable LLaMA tokenizer"):
        load_tokenizer(tmp_path)
