"""A small LLaMA tokenizer (BPE with byte fallback, as SentencePiece has it) learnt from general instruction samples.

Command:  python experiments/pretrain_tiny_llava/tokenizer.py DIR   (seconds, one core)
Writes:   DIR/tokenizer.json and DIR/tokenizer_config.json, as `transformers` reads them without a network

Ids: <unk> 0 (also the padding), <s> 1, </s> 2, the 256 bytes, then single letters and what is merged from them. A digit
is always a piece of its own, and so is the newline, as a byte. What no sample says is spelled, at worst byte by byte.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lpi_jax.data.instructed import Instructed
from lpi_jax.data.questions.general import general

UNKNOWN, START, END = "<unk>", "<s>", "</s>"
SPACE = "▁"
TEMPLATE = ("USER:", "ASSISTANT:")
PIECES = 768
SEED, SAMPLES = 2026, 10_000
LETTERS = [chr(code) for code in range(33, 127)]  # printable ASCII: each is a piece, so that words are spelled readably
# Pieces are learnt within words, their space in front; a digit and a sign of punctuation stand alone.
_ALONE = Regex(rf"{SPACE}?[A-Za-z]+|[^A-Za-z]")


def sentences(records: Iterable[Instructed]) -> list[str]:
    """All questions and answers line by line, with the words of the chat template."""
    said = [text for record in records for turn in record.turns for text in turn]
    return [*TEMPLATE * (len(said) // 10), *(line for text in said for line in text.split("\n"))]


def learn(texts: Iterable[str], pieces: int = PIECES) -> Tokenizer:
    """A tokenizer of `pieces` ids; texts: without newlines."""
    learner = Tokenizer(models.BPE(unk_token=UNKNOWN))
    learner.normalizer = _marked()
    learner.pre_tokenizer = pre_tokenizers.Split(_ALONE, behavior="isolated")
    alphabet = [SPACE, *LETTERS]
    special = [UNKNOWN, START, END, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=pieces, special_tokens=special, initial_alphabet=alphabet, limit_alphabet=len(alphabet),
        min_frequency=2, show_progress=False,
    )  # fmt: skip
    learner.train_from_iterator(texts, trainer)
    learnt = json.loads(learner.to_str())["model"]
    tokenizer = Tokenizer(
        models.BPE(
            learnt["vocab"], [tuple(pair) for pair in learnt["merges"]],
            unk_token=UNKNOWN, fuse_unk=True, byte_fallback=True,
        )
    )  # fmt: skip
    tokenizer.normalizer = _marked()
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in (UNKNOWN, START, END)])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A", pair=f"{START} $A {START} $B", special_tokens=[(START, 1)]
    )
    return tokenizer


def _marked() -> normalizers.Normalizer:
    """Spaces as LLaMA marks them, one more in front of a text."""
    return normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])


def write(tokenizer: Tokenizer, out: Path) -> None:
    """The two files, into the folder `out`."""
    config = {
        "tokenizer_class": "LlamaTokenizerFast",
        "bos_token": START,
        "eos_token": END,
        "unk_token": UNKNOWN,
        "pad_token": UNKNOWN,
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "legacy": True,
        "model_max_length": 2048,
    }
    out.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(out / "tokenizer.json"))
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> None:
    """Learns from general samples and writes the files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path, help="the folder")
    parser.add_argument("--pieces", type=int, default=PIECES)
    arguments = parser.parse_args()
    write(learn(sentences(general(SEED, SAMPLES).records), arguments.pieces), arguments.out)


if __name__ == "__main__":
    main()
