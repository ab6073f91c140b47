"""A small CLIP tokenizer (byte-level BPE) learnt from captions, in the files `transformers` reads."""

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers

SOT, EOT = "<|startoftext|>", "<|endoftext|>"
WORDS = r"""'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"""


def learn(captions: Iterable[str], vocab_size: int, out: Path) -> None:
    """Learns merges from `captions` and writes vocab.json, merges.txt and tokenizer_config.json to `out`.

    Every byte is a token, with and without the end of a word, so any text can be encoded; <|endoftext|> has the
    highest id, because the text tower pools there by argmax.

    Args:
      captions: cleaned captions. vocab_size: number of ids, the 512 bytes and the two special tokens included.
    """
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(bytes_) - 2, end_of_word_suffix="</w>", show_progress=False, min_frequency=2
    )
    tokenizer.train_from_iterator(captions, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]
    tokens = [*bytes_, *(b + "</w>" for b in bytes_)]
    known = set(tokens)
    tokens += [t for t in sorted(learnt["vocab"], key=learnt["vocab"].get) if t not in known]
    tokens = [*tokens[: vocab_size - 2], SOT, EOT]
    kept = set(tokens)
    merges = [(a, b) for a, b in map(_pair, learnt["merges"]) if {a, b, a + b} <= kept]

    out.mkdir(parents=True, exist_ok=True)
    (out / "vocab.json").write_text(json.dumps({t: i for i, t in enumerate(tokens)}, ensure_ascii=False) + "\n")
    (out / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges), encoding="utf-8")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": SOT,
        "eos_token": EOT,
        "unk_token": EOT,
        "pad_token": EOT,
        "model_max_length": 77,
    }
    (out / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n")


def _pair(merge: str | list[str]) -> tuple[str, str]:
    a, b = merge.split(" ") if isinstance(merge, str) else merge
    return a, b
