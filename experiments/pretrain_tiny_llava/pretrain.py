"""Pretrains the bundled tiny LLaVA: projector and LLaMA learn, on general samples, to answer with the tiny CLIP's eyes.

Command:  python experiments/pretrain_tiny_llava/pretrain.py
Hardware: two CPU cores; minutes, losses and scores are written to experiments/pretrain_tiny_llava/report.json
Writes:   lpi_jax/assets/tiny_llava/ (config, weights in float16, tokenizer), loss.csv, loss.png, report.json

What it sees: `general` samples, whose pictures are outside every task's validation by their contents (each is checked),
and whose wordings are no task's, and made-up tasks about the same pictures (`variants`).
A run that was ended goes on from its last checkpoint.
"""

import argparse
import json
import sys
from pathlib import Path

import jax
import numpy as np

from lpi_jax.data.questions.general import general
from lpi_jax.data.questions.source import Options
from lpi_jax.models import weights as clip_weights
from lpi_jax.models.llava import weights
from lpi_jax.models.llava.config import LlamaConfig, LlavaConfig
from lpi_jax.models.llava.llava import LLaVA
from lpi_jax.models.tensor_files import json_object
from lpi_jax.problems.instruction.conversation import VICUNA

sys.path.insert(0, str(Path(__file__).parent))
import evaluate
import export
import tokenizer as pieces
import training
from network import TRAINED
from rows import Mix, Packing, Pieces, Rows

HERE = Path(__file__).parent
ASSETS = HERE.parents[1] / "lpi_jax" / "assets"
SEED, HELD_OUT = 2026, 10_000_000  # general samples of seeds SEED + 1, ... train, one batch a seed
BATCH = 16
ROUNDS = (training.Round(12_500, 2e-3), training.Round(10_000, 1.5e-3))
MIX, RISING = Mix(varied=0.4, misled=0.4, told=0.5), 2500  # steps in which the share of made-up tasks rises
WIDTH, LAYERS, HEADS, MLP = 128, 5, 4, 352
MAX_LENGTH = 512


def main() -> None:
    """Trains, writes the backbone and the record of how it came about."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ASSETS / "tiny_llava")
    parser.add_argument("--steps", type=int, help="one short round instead of the recipe's")
    parser.add_argument("--record", type=Path, default=HERE, help="folder of report.json, loss.csv and loss.png")
    parser.add_argument("--work", type=Path, default=HERE.parents[1] / "runs" / "pretrain_tiny_llava")
    parser.add_argument("--questions", type=int, default=500, help="held-out general questions")
    parser.add_argument("--val", type=int, default=100, help="validation samples of each task of the stream")
    args = parser.parse_args()
    rounds = (training.Round(args.steps, ROUNDS[0].peak),) if args.steps else ROUNDS

    if not (args.out / "tokenizer.json").exists():
        pieces.write(pieces.learn(pieces.sentences(general(pieces.SEED, pieces.SAMPLES).records)), args.out)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(str(args.out), local_files_only=True)
    clip_config, clip = clip_weights.load(ASSETS / "tiny_clip")
    frozen = {name: part for name, part in clip.items() if name != "logit_scale"}
    llama = LlamaConfig(len(tokenizer), WIDTH, LAYERS, HEADS, HEADS, MLP)
    config = LlavaConfig(clip_config, llama, max_length=MAX_LENGTH)
    patches = (clip_config.image_size // clip_config.patch_size) ** 2
    packing = Packing(Pieces(tokenizer), BATCH, clip_config.image_size, patches)

    def make(step: int) -> Rows:
        return packing.batch(SEED + 1 + step, MIX._replace(varied=MIX.varied * min(1.0, step / RISING)))

    progress = training.train(LLaVA(config), frozen, make, packing.batch(HELD_OUT), rounds, SEED, args.work)
    vision = json_object(ASSETS / "tiny_clip" / "config.json")["vision_config"]
    trained = {name: progress.trained[name] for name in TRAINED}
    export.save(args.out, config, trained, vision)
    config, params = weights.load(args.out, ASSETS / "tiny_clip")
    answer = evaluate.Answerer(LLaVA(config), params, tokenizer)
    general_questions = evaluate.held_out(HELD_OUT + 1, args.questions, clip_config.image_size)
    stream = Options(train=1, val=args.val, image_size=clip_config.image_size)
    some = np.linspace(0, progress.step - 1, 30).astype(int)
    conversations = progress.step * BATCH * np.mean([make(step).group.max(axis=1).mean() for step in some.tolist()])
    report = {
        "command": "python experiments/pretrain_tiny_llava/pretrain.py",
        "seed": SEED,
        "steps": progress.step,
        "rounds_of_the_recipe": [each._asdict() for each in ROUNDS],
        "batch": BATCH,
        "sizes": {"width": WIDTH, "layers": LAYERS, "heads": HEADS, "mlp": MLP, "vocabulary": len(tokenizer)},
        "parameters": int(sum(leaf.size for leaf in jax.tree.leaves(trained))),
        "seen": {"pictures": progress.step * BATCH, "conversations, about": round(conversations)},
        "loss": progress.curve[-1]._asdict(),
        "held_out": evaluate.by_kind(answer, general_questions),
        "stream_before_learning": {
            "no system text": evaluate.by_task(answer, stream),
            "LLaVA's system text": evaluate.by_task(answer._replace(system=VICUNA), stream),
        },
        "minutes": round(progress.seconds / 60, 1),
        "bytes": sum(file.stat().st_size for file in args.out.iterdir()),
        "sha256": clip_weights.fingerprint(params),
    }
    training.draw(progress.curve, args.record)
    (args.record / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
