"""Pretrains the bundled tiny CLIP on general scenes and on clip-art that no stream is evaluated with.

Command:  python experiments/pretrain_tiny/pretrain.py --clipart DIR   (DIR: made by experiments/clipart/prepare.py)
Hardware: two CPU cores; minutes, loss and recall are written to experiments/pretrain_tiny/report.json
Writes:   lpi_jax/assets/tiny_clip/ (config, weights in float16, tokenizer), loss.csv, loss.png, report.json

What it sees: `general` scenes, which draw only from contents outside every domain's validation bucket, and the
drawings of DIR/background.jsonl, which holds no validation drawing of the clip-art stream and no look-alike of one.
"""

import argparse
import csv
import hashlib
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from lpi_jax.data.images import read_image
from lpi_jax.data.loader import Transform, ahead
from lpi_jax.data.scenes.source import general
from lpi_jax.data.transforms import CLIP_MEAN, CLIP_STD, clean_caption, random_crop_and_flip, resize_and_crop
from lpi_jax.methods import finetune, routing
from lpi_jax.models import weights
from lpi_jax.models.clip import CLIP, CLIPConfig, TowerConfig
from lpi_jax.models.clip_start import init_params
from lpi_jax.models.tokenizer import Tokenizer, trim
from lpi_jax.parallel.mesh import make_mesh, put_replicated
from lpi_jax.problems.retrieval.captions import Captions
from lpi_jax.problems.retrieval.options import Measured
from lpi_jax.problems.retrieval.problem import Retrieval
from lpi_jax.problems.retrieval.ranks import ranks, recall
from lpi_jax.problems.retrieval.score import Scored
from lpi_jax.problems.retrieval.towers import Towers
from lpi_jax.train import optimizer
from lpi_jax.train.step import Task, fit, make_step

sys.path.insert(0, str(Path(__file__).parent))
import bpe

HERE = Path(__file__).parent
SEED = 2026
SCENES, HELD_OUT = 40_000, 500
STEPS, BATCH, WARMUP = 3500, 128, 100
GROUNDS = 8  # a batch of scenes lies on so few grounds that the ground alone does not tell a caption's picture
PEAK_LR = 1e-3
OPTIMIZER = {
    "optimizer": "adamw",
    "optimizer_args": {"b2": 0.98, "weight_decay": 0.05},
    "clip_norm": 1.0,
    "decay": "matrices",
}
CLIPART_SHARE = 0.25  # of the batches; a batch is of one kind, so that the kind itself is no cue
MAX_PLACEHOLDERS = 8  # half of the captions stand behind up to so many "x", as a prompted caption will
VOCABULARY = 2048
SIZE, PATCH = 60, 10


def main() -> None:
    """Trains, writes the backbone and the record of how it came about."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clipart", type=Path, required=True, help="folder made by experiments/clipart/prepare.py")
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "lpi_jax" / "assets" / "tiny_clip")
    parser.add_argument("--steps", type=int, default=STEPS)
    args = parser.parse_args()
    began = time.time()

    *scenes, grounds = scene_pictures()
    pictures = {"scenes": scenes, "clipart": clipart_pictures(args.clipart)}
    if not (args.out / "vocab.json").exists():
        # Learnt once: merges of equal count come in any order, and the weights belong to one order.
        bpe.learn([c for _, captions in pictures.values() for own in captions for c in own], VOCABULARY, args.out)
    tokenizer = Tokenizer.load(args.out)
    grounds = np.unique(grounds[HELD_OUT:], return_inverse=True)[1]
    by_ground = [np.flatnonzero(grounds == k) for k in range(grounds.max() + 1)]
    train, held_out = {}, {}
    for kind, (images, captions) in pictures.items():
        ids = [tokenizer.encode(own)[0] for own in captions]
        cut = HELD_OUT if kind == "scenes" else HELD_OUT // 5
        train[kind], held_out[kind] = (images[cut:], ids[cut:]), (images[:cut], ids[:cut])

    config = CLIPConfig(
        image_size=SIZE,
        patch_size=PATCH,
        embed_dim=128,
        vision=TowerConfig(width=192, layers=4, heads=3, mlp_dim=768),
        text=TowerConfig(width=128, layers=4, heads=2, mlp_dim=512),
        vocab_size=tokenizer.vocab_size,
    )
    towers = Towers(CLIP(config), CLIP_MEAN, CLIP_STD)
    params, curve = train_all(args.steps, config, towers, tokenizer, partial(make_batch, train, by_ground, tokenizer))
    params["logit_scale"] = np.minimum(params["logit_scale"], np.float32(np.log(100.0)))
    weights.save(args.out, config, params, dtype=np.float16)
    report = {
        "seed": SEED,
        "steps": args.steps,
        "batch": BATCH,
        "parameters": int(sum(p.size for p in jax.tree.leaves(params))),
        "pictures": {kind: len(images) for kind, (images, _) in train.items()},
        "held_out": {kind: evaluate(towers, params, *pair) for kind, pair in held_out.items()},
        "minutes": round((time.time() - began) / 60, 1),
        "background_sha256": hashlib.sha256((args.clipart / "background.jsonl").read_bytes()).hexdigest(),
        "sha256": weights.fingerprint(weights.load(args.out)[1]),
    }
    write_record(curve, report)
    print(json.dumps(report, indent=2))


def train_all(
    steps: int,
    config: CLIPConfig,
    towers: Towers,
    tokenizer: Tokenizer,
    make: Callable[[int], tuple[str, np.ndarray, np.ndarray]],
) -> tuple[dict, list[tuple[int, str, float]]]:
    """Trains every parameter from scratch: fine-tuning of a random backbone on a stream of one task, retrieval.

    Args:
      make: step -> kind, images [B, S, S, 3] uint8, token ids [B, N] int32 of its batch.

    Returns:
      The parameters as host arrays, and every twentieth step's (step, kind of batch, loss).
    """
    mesh = make_mesh(1)
    captions = Captions(tokenizer, config.context_length, max_words=config.context_length)
    centre = Transform(SIZE)
    measured = Measured(batch=BATCH, seed=SEED)
    problem = Retrieval(towers, captions, centre, centre, measured)
    method = finetune.build(finetune.Options(where="."), problem.sites, routing.Options())
    options = optimizer.Options(epochs=1, batch=BATCH, lr=PEAK_LR, schedule="smooth", warmup=WARMUP, **OPTIMIZER)
    step = make_step(problem, method, optimizer.make_optimizer(options), mesh)
    frozen = put_replicated(init_params(config, jax.random.key(SEED)), mesh)
    trainable, constants = method.begin(jax.random.key(SEED), {}, frozen, None)
    kinds, curve = {}, []
    bar = tqdm(total=steps, desc="pretraining")

    def batch(number: int) -> dict[str, np.ndarray]:
        kinds[number], images, ids = make(number)
        return {"images": images, "token_ids": ids}

    def after_step(state, done: int, terms: dict[str, jax.Array], waited: float) -> None:
        kind = kinds.pop(done - 1)
        if (done - 1) % 20 == 0 or done == steps:
            curve.append((done - 1, kind, float(terms["loss"])))
            bar.set_postfix_str(f"{kind} {curve[-1][2]:.3f}")
        bar.update()

    plan = Task(frozen, constants, jax.random.key(SEED), optimizer.learning_rate(options, steps))
    state = fit(step.start(trainable), step, plan, ahead(batch, range(steps)), after_step)
    adapter, _ = method.adapt(state.trainable, constants, frozen, {})
    return jax.tree.map(np.asarray, adapter.params), curve


def scene_pictures() -> tuple[list[Image.Image], list[list[str]], list[str]]:
    """General scenes: SIZE x SIZE pictures, their cleaned captions, what they stand on."""
    split = general(SEED, SCENES, SIZE)
    rows = tqdm(range(len(split)), desc="drawing scenes")
    images, grounds = zip(*((split.load(i), split.records[i].annotation.ground) for i in rows), strict=True)
    return list(images), [[clean_caption(c) for c in record.captions] for record in split.records], list(grounds)


def clipart_pictures(folder: Path) -> tuple[list[Image.Image], list[list[str]]]:
    """The drawings of background.jsonl in a fixed random order: pictures of any size, cleaned captions."""
    records = [json.loads(line) for line in (folder / "background.jsonl").read_text().splitlines()]
    order = np.random.default_rng(SEED).permutation(len(records))
    images = [read_image(folder / records[i]["image"]) for i in tqdm(order, desc="reading clip-art")]
    return images, [[clean_caption(c) for c in records[i]["captions"]] for i in order]


def make_batch(
    train: dict, by_ground: list[np.ndarray], tokenizer: Tokenizer, step: int
) -> tuple[str, np.ndarray, np.ndarray]:
    """The batch of a step, a function of the seed and the step alone."""
    rng = np.random.default_rng([SEED, step])
    kind = "clipart" if rng.random() < CLIPART_SHARE else "scenes"
    images, ids = train[kind]
    if kind == "scenes":
        some = rng.choice(len(by_ground), GROUNDS, replace=False)
        chosen = np.concatenate([rng.choice(by_ground[k], BATCH // GROUNDS, replace=False) for k in some])
    else:
        chosen = rng.choice(len(images), BATCH, replace=False)
    # Left and right have a meaning in scenes, and nothing may be cut off; a drawing bears both.
    scale, flip = ((0.9, 1.0), False) if kind == "scenes" else ((0.5, 1.0), True)
    pixels = [random_crop_and_flip(images[i], SIZE, rng, scale=scale, flip=flip) for i in chosen]
    rows = [ids[i][rng.integers(len(ids[i]))] for i in chosen]
    placeholder = tokenizer.encode(["x"])[0][0, 1]
    rows = [shifted(row, placeholder, rng.integers(1, MAX_PLACEHOLDERS + 1) * rng.integers(2)) for row in rows]
    return kind, np.stack(pixels), trim(np.stack(rows))


def shifted(row: np.ndarray, placeholder: int, count: int) -> np.ndarray:
    """[SOT, caption, EOT, padding] -> [SOT, placeholder x count, caption, EOT, padding], length kept."""
    return np.concatenate([row[:1], np.full(count, placeholder, row.dtype), row[1:]])[: len(row)]


def evaluate(towers: Towers, params, images, ids) -> dict[str, float]:
    """Recall@1 in per cent on held-out pictures, first captions, both directions."""
    image = np.asarray(towers.image(params, np.stack([resize_and_crop(image, SIZE) for image in images]), None))
    text = np.asarray(towers.text(params, np.stack([own[0] for own in ids]), None))
    images, texts, own = Scored(image), Scored(text), np.arange(len(image), dtype=np.int32)[:, None]
    return {
        "gallery": len(image),
        "image_to_text_r1": round(recall(ranks(images, texts, own), 1), 1),
        "text_to_image_r1": round(recall(ranks(texts, images, own), 1), 1),
    }


def write_record(curve: list[tuple[int, str, float]], report: dict) -> None:
    """loss.csv, loss.png and report.json beside this script."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    with open(HERE / "loss.csv", "w", newline="") as file:
        csv.writer(file).writerows([("step", "batch", "loss"), *((i, k, f"{x:.4f}") for i, k, x in curve)])
    figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
    for kind in ("scenes", "clipart"):
        axes.plot(*zip(*[(i, x) for i, k, x in curve if k == kind], strict=True), label=kind)
    axes.set(xlabel="step", ylabel="contrastive loss, nats", title="Pretraining the bundled backbone")
    axes.legend()
    figure.savefig(HERE / "loss.png", dpi=110)
    (HERE / "report.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
