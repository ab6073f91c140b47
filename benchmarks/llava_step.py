"""A training step of ModalPrompt and batched answers beside PyTorch, and what choosing few sets of prompts saves.

Command:  python benchmarks/llava_step.py [--size tiny|small] [--json FILE]
          python benchmarks/llava_step.py --sets    (three sets of prompts against those of all tasks; ours alone)
Hardware: two CPU cores with nothing else to do; or a GPU, which the peer needs a PyTorch for
Minutes:  one for tiny; small is not measured (the line of the hardware says how many it took)

The peer (benchmarks/peers/llava_torch.py; extra [bench]) is LLaVA of `transformers` with the same random weights,
float32, frozen. Three things are compared: ModalPrompt's step (`guided`), in which a sample has K sets of prompts and
the prototype is aligned; a step that tunes one set of prompts by its loss (`alone`); and greedy answers to a batch of
unequal questions with images, K sets of prompts each: only generated tokens are counted, but the reading of image and
question is timed too. The row of the output matrix that ends an answer is zero, a logit that is never the largest, so
that each row of the batch has all of its tokens on both sides. Before the clock runs, both must have the same loss, the
same gradient of the prompts and the same tokens, or the benchmark ends with an error.

Ours runs in this process and the peer in its own, so that neither has the other's allocator and thread pools, on the
same cores; they take turns, the other first in every second repeat, and one works while the other waits for its input.
Threads that have nothing to do spin for milliseconds before they sleep: a rest before each turn and a call that is not
counted at its beginning keep that off the clock. Shown are medians over the repeats, and of the ratio also the range.
"""

import argparse
import contextlib
import importlib.util
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
import safetensors.numpy
from beside import Row, Side, cores, on, started, table, turn
from flax import traverse_util
from loader import processor

from lpi_jax.methods import modalprompt, routing
from lpi_jax.methods.base import NOTHING, Method, TaskContext
from lpi_jax.models import weights
from lpi_jax.models.clip import CLIPConfig, TowerConfig
from lpi_jax.models.llava import weights as llava_weights
from lpi_jax.models.llava.config import LlamaConfig, LlavaConfig
from lpi_jax.models.llava.generation import generate
from lpi_jax.models.llava.llava import Inputs, LLaVA, init_params
from lpi_jax.models.llava.names import name_of
from lpi_jax.models.llava.splice import IGNORE, IMAGE
from lpi_jax.parallel import mesh as meshes
from lpi_jax.problems.instruction.adapters import Adapters
from lpi_jax.problems.instruction.problem import Instruction
from lpi_jax.problems.instruction.sides import SIDE
from lpi_jax.train import optimizer as optimizers
from lpi_jax.train.step import Task, TrainState, fit, make_step
from lpi_jax.types import Tree

PEER = Path(__file__).parent / "peers" / "llava_torch.py"
CASES = ("guided", "alone")  # of training
SEED, SETS, PROMPTS, FINISHED = 0, 3, 10, 8
LR, CLIP_NORM, BETA = 2e-4, 1.0, 0.9
LOSS, GRADIENT = 1e-5, 1e-4  # largest relative differences between the sides

SIZES = {
    "least": LlavaConfig(
        CLIPConfig(28, 14, 16, TowerConfig(32, 2, 4, 40), TowerConfig(16, 1, 2, 24), 50, 12),
        LlamaConfig(64, 32, 1, 4, 4, 48),
    ),
    "tiny": LlavaConfig(
        CLIPConfig(60, 10, 128, TowerConfig(192, 4, 3, 768), TowerConfig(128, 4, 2, 512), 2048),
        LlamaConfig(2000, 128, 4, 4, 4, 352),
    ),
    "small": LlavaConfig(
        CLIPConfig(224, 32, 512, TowerConfig(768, 12, 12, 3072), TowerConfig(512, 12, 8, 2048), 49408),
        LlamaConfig(32000, 512, 8, 8, 8, 1376),
    ),
}


def main() -> None:
    """Checks, measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="tiny")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--length", type=int, default=64, help="ids of a conversation, at most")
    parser.add_argument("--new", type=int, default=32, help="tokens of an answer")
    parser.add_argument("--steps", type=int, default=5, help="training steps of a turn")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2, help="CPU cores that each side may use")
    parser.add_argument("--device", choices=("default", "cpu"), default="default", help="default: JAX's and PyTorch's")
    parser.add_argument("--sets", action="store_true", help="measure three sets of prompts against all instead")
    parser.add_argument("--tasks", type=int, nargs="+", default=[3, 8, 16, 32], help="of --sets: how many are learnt")
    parser.add_argument("--json", type=Path, help="a file to write the numbers to")
    args = parser.parse_args()
    if args.length < 12 or min(args.batch, args.new, args.steps, args.repeats, args.threads, *args.tasks) < 1:
        parser.error("--length must be 12 or more, all other numbers 1 or more")

    began = time.perf_counter()
    on(args.threads)
    if args.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model(folder, SIZES[args.size])
        ours = Ours(folder, args)
        found = measure_sets(ours, args) if args.sets else measure_sides(ours, folder, args)
    told = {
        "command": " ".join(["python", *sys.argv]),
        "hardware": f"{jax.devices()[0].device_kind}; {len(cores())} of {os.cpu_count()} cores, {processor()}",
        "minutes": (time.perf_counter() - began) / 60,
        "arguments": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
        **found,
    }
    print(f"Command:  {told['command']}\nHardware: {told['hardware']}; {told['minutes']:.1f} minutes")
    for line in told["same"]:
        print(f"Same:     {line}")
    print(f"\n{sets_table(told['rows']) if args.sets else table(told['rows'])}")
    if args.json:
        args.json.write_text(json.dumps(told | {"rows": [row._asdict() for row in told["rows"]]}, indent=1))


# ---- the model and the work, as files that both sides read -----------------------------------------------------------


def write_model(folder: Path, config: LlavaConfig) -> None:
    """A random LLaVA as Hugging Face's directory, and in `clip` the CLIP whose image tower it has."""
    params = jax.tree.map(np.array, init_params(config, jax.random.key(SEED)))
    params["language_model"]["lm_head"]["kernel"][:, config.eos] = 0
    towers = {name: params[name] for name in ("vision_model", "text_model", "visual_projection", "text_projection")}
    weights.save(folder / "clip", config.clip, {**towers, "logit_scale": np.float32(0)})
    tensors = {}
    for leaf, value in traverse_util.flatten_dict(params).items():
        if called := torch_name(name_of(leaf)):
            turned = value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T if leaf[-1] == "kernel" else value
            tensors[called] = np.ascontiguousarray(turned)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    llama, clip = config.llama, json.loads((folder / "clip" / "config.json").read_text())
    text = {
        "model_type": "llama",
        "vocab_size": llama.vocab_size,
        "hidden_size": llama.width,
        "intermediate_size": llama.mlp_dim,
        "num_hidden_layers": llama.layers,
        "num_attention_heads": llama.heads,
        "num_key_value_heads": llama.kv_heads,
        "rms_norm_eps": llama.rms_norm_eps,
        "max_position_embeddings": config.max_length,
    }
    fields = {"model_type": "llava", "text_config": text, "vision_config": clip["vision_config"]}
    (folder / "config.json").write_text(json.dumps(fields))


def torch_name(name: str) -> str:
    """The name of a tensor in transformers' LLaVA; "" of one that it does not have."""
    for ours, theirs in (
        ("language_model.lm_head.", "lm_head."),
        ("language_model.", "model.language_model."),
        ("projector.", "model.multi_modal_projector."),
        ("vision_model.", "model.vision_tower."),
    ):
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    return ""


def conversations(config: LlavaConfig, args: argparse.Namespace) -> dict[str, Tree]:
    """Batches of random words with an image each: `train`, and `ask`, the same up to the answer.

    The first row is as long as can be, others down to three quarters of that; the last quarter of a row is its answer.
    """
    rng = np.random.default_rng(SEED)
    clip, shape = config.clip, (args.batch, args.length)
    length = rng.integers(3 * args.length // 4, args.length + 1, args.batch).astype(np.int32)
    length[0] = args.length
    asked = (3 * length) // 4
    ids = rng.integers(3, config.llama.vocab_size, shape, np.int32)
    ids[:, 0] = config.bos
    ids[:, args.length // 4] = IMAGE
    place = np.arange(args.length)
    ids[place >= length[:, None]] = config.pad
    labels = np.where((place >= asked[:, None]) & (place < length[:, None]), ids, IGNORE).astype(np.int32)
    question = rng.integers(1, clip.vocab_size - 2, (args.batch, clip.context_length), np.int32)
    question[:, 0] = clip.vocab_size - 2
    question[:, clip.context_length // 3 :] = clip.vocab_size - 1
    size = (args.batch, clip.image_size, clip.image_size, 3)
    seen = {"images": rng.standard_normal(size, np.float32), "has_image": np.ones(args.batch, bool)}
    before = np.where(place < asked[:, None], ids, config.pad)[:, : asked.max()]
    return {
        "train": {**seen, "ids": ids, "labels": labels, "length": length, "question_ids": question},
        "ask": {**seen, "ids": before, "length": asked},
    }


# ---- ours ------------------------------------------------------------------------------------------------------------


class Tuned(NamedTuple):
    """A case of training: the step, what it needs of the task, and where it stands."""

    step: Any
    task: Task
    state: TrainState


class Ours:
    """This package's step and answers, with prompts of `FINISHED` tasks or more in the memory."""

    def __init__(self, folder: Path, args: argparse.Namespace) -> None:
        self._args, self._mesh = args, meshes.make_mesh(1)
        where = meshes.replicated(self._mesh)
        self.config, self.frozen = llava_weights.load(folder, folder / "clip", where)
        self.problem = Instruction(LLaVA(self.config))
        self.method, self.memory = self._method(SETS), {}
        for number in range(max(FINISHED, *args.tasks) if args.sets else FINISHED):
            tree, _ = self._begin(self.method, number)
            self.memory = self.method.finish(self.memory, tree, context(number, self.config))
        self.batches = conversations(self.config, args)
        rows = np.arange(args.batch)[:, None] + np.arange(SETS)
        shown = self.memory["trained"]["prompts"][rows % FINISHED]
        self._shown = shown.reshape(args.batch, 1, SETS * PROMPTS, -1)
        self._queries = jax.jit(self.problem.queries)
        self._tuned: dict[str, Tuned] = {}

    def device(self) -> str:
        """What it computes on, as PyTorch calls it."""
        return {"gpu": "cuda"}.get(jax.devices()[0].platform, jax.devices()[0].platform)

    def first(self, case: str) -> dict[str, Any]:
        """Loss of the first step, and the clipped gradient [P, D] of the prompts, from AdamW's first moment."""
        method = self.method
        if case == "alone":
            method = self._method(1)._replace(losses=lambda *_: {})
        trainable, constants = self._begin(method, FINISHED)
        options = optimizers.Options(optimizer="adamw", optimizer_args={"weight_decay": 0.0}, clip_norm=CLIP_NORM)
        step = make_step(self.problem, method, optimizers.make_optimizer(options), self._mesh)
        task = Task(self.frozen, constants, jax.random.key(SEED), lambda _: LR)
        told: list[dict[str, jax.Array]] = []
        state = fit(step.start(trainable), step, task, [self.batches["train"]], lambda *made: told.append(made[2]))
        self._tuned[case] = Tuned(step, task, state)
        moment = optax.tree_utils.tree_get(state.opt_state, "mu")["prompts"]
        return {"loss": float(told[0]["loss"]), "gradient": (np.asarray(moment) / (1 - BETA)).tolist()}

    def train(self, case: str, steps: int) -> float:
        """Seconds of one step, the mean of so many behind one that does not count."""
        tuned = self._tuned[case]

        def ahead(state: TrainState, count: int) -> TrainState:
            rows = [self.batches["train"]] * count
            return jax.block_until_ready(fit(state, tuned.step, tuned.task, rows, lambda *_: None))

        state = ahead(tuned.state, 1)
        began = time.perf_counter()
        state = ahead(state, steps)
        spent = time.perf_counter() - began
        self._tuned[case] = tuned._replace(state=state)
        return spent / steps

    def answers(self) -> list[list[int]]:
        """Ids [B, new] that are generated."""
        return self._answers(self._shown).tolist()

    def decode(self) -> float:
        """Seconds of answering the batch."""
        began = time.perf_counter()
        self.answers()
        return time.perf_counter() - began

    def choose(self, tasks: int) -> float:
        """Seconds of answering the batch under `SETS` sets each, chosen among those of so many tasks."""
        memory = jax.tree.map(lambda leaf: leaf[:tasks], self.memory)
        adapters = Adapters(self.method, memory, self.frozen)
        asked = {**self.batches["ask"], "question_ids": self.batches["train"]["question_ids"]}
        began = time.perf_counter()
        queries = {SIDE: np.asarray(self._queries(self.frozen, asked)[SIDE])}
        (group,) = adapters.groups(self.method.assign(memory, queries, NOTHING)[SIDE].ids)
        self._answers(group.prompts[group.chosen], group.present[group.chosen])
        return time.perf_counter() - began

    def show_all(self, tasks: int) -> float:
        """Seconds of answering the batch under the sets of all of so many tasks; nothing is chosen."""
        prompts = self.memory["trained"]["prompts"][:tasks]
        began = time.perf_counter()
        self._answers(prompts.reshape(1, tasks * PROMPTS, -1))
        return time.perf_counter() - began

    def work(self) -> dict[str, np.ndarray]:
        """What the peer is given: arrays by name."""
        tree, _ = self._begin(self.method, FINISHED)
        train, ask = self.batches["train"], self.batches["ask"]
        nothing = np.full_like(ask["ids"], IGNORE)
        return {
            "images": train["images"],
            "question_ids": train["question_ids"],
            "train/tokens": np.stack([train["ids"], train["labels"]], 1),
            "train/length": train["length"],
            "ask/tokens": np.stack([ask["ids"], nothing], 1),
            "ask/length": ask["length"],
            "shown": self._shown[:, 0],
            "finished": self.memory["trained"]["prompts"][:FINISHED],
            "prototypes": self.memory["prototypes"][:FINISHED],
            **{f"own/{name}": np.asarray(leaf) for name, leaf in traverse_util.flatten_dict(tree, sep="/").items()},
        }

    def _answers(self, prompts: np.ndarray, present: np.ndarray | None = None) -> np.ndarray:
        inputs = Inputs(**self.batches["ask"], prompts=prompts, present=present)
        return np.asarray(generate(self.problem.model, self.frozen, inputs, self._args.new).ids)

    def _method(self, sets: int) -> Method:
        options = modalprompt.Options(sets=sets, prompts=PROMPTS)
        return modalprompt.build(options, self.problem.sites, routing.Options())

    def _begin(self, method: Method, number: int) -> tuple[Tree, Tree]:
        key = jax.random.fold_in(jax.random.key(SEED), number)
        return method.begin(key, self.memory, self.frozen, context(number, self.config))


def context(number: int, config: LlavaConfig) -> TaskContext:
    """A task of which the method looks at the number alone, and at the width of its meaning."""
    return TaskContext(
        number=number,
        names=tuple(map(str, range(number + 1))),
        meaning=np.zeros(config.clip.embed_dim, np.float32),
        examples=1,
        seed=SEED,
        features=dict,
        batches=lambda count: iter(()),
        gradient=lambda *_: {},
    )


# ---- beside the peer -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def started_peer(folder: Path, ours: Ours, args: argparse.Namespace) -> Iterator[list[Side]]:
    """The peer in a process of its own; [] without PyTorch, or where its PyTorch cannot use the device of ours."""
    if importlib.util.find_spec("torch") is None:
        print("PyTorch is not installed: the peer is left out", file=sys.stderr)
        yield []
        return
    np.savez(folder / "work.npz", **ours.work())
    settings = {
        "threads": args.threads,
        "cuda": ours.device() == "cuda",
        "sets": SETS,
        "lr": LR,
        "clip_norm": CLIP_NORM,
        "new": args.new,
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    with started([sys.executable, str(PEER), str(folder)]) as ask:
        device = ask("device")
        if device != ours.device():
            print(f"PyTorch computes on {device}, not on {ours.device()}: the peer is left out", file=sys.stderr)
        yield [ask] if device == ours.device() else []


def measure_sides(ours: Ours, folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """What was found to be the same, and the rows of the table."""

    def own(name: str, *arguments: Any) -> Any:
        return getattr(ours, name)(*arguments)

    turns = (
        ("training, ModalPrompt's step, samples/s", args.batch, ("train", "guided", args.steps)),
        ("training, one set of prompts alone, samples/s", args.batch, ("train", "alone", args.steps)),
        ("decoding, tokens/s", args.batch * args.new, ("decode",)),
    )
    with started_peer(folder, ours, args) as peer:
        sides = [own, *peer]
        same = [compared_training(sides, case) for case in CASES]
        same.append(compared_answers(sides, ours.config.eos, args.new))
        rows = []
        for what, done, call in turns:
            rates: list[list[float]] = [[] for _ in sides]
            for number in range(args.repeats):
                for place in range(len(sides))[:: -1 if number % 2 else 1]:
                    rates[place].append(
                        done / turn(sides[place], call, ahead=call[0] != "train")
                    )  # which begins with one
            rows.append(Row(what, rates[0], rates[1] if peer else []))
    return {"same": same if peer else [], "rows": rows}


def compared_training(sides: Sequence[Side], case: str) -> str:
    """How far apart first steps of ours and the last side are, in words; ends the benchmark where they differ."""
    found = [side("first", case) for side in sides]
    losses, gradients = [one["loss"] for one in found], [np.array(one["gradient"]) for one in found]
    apart = abs(losses[0] / losses[-1] - 1)
    turned = float(np.abs(gradients[0] - gradients[-1]).max() / np.abs(gradients[-1]).max())
    line = f"{case}: loss {losses[0]:.6f}, relatively {apart:.1e} apart, gradient of the prompts {turned:.1e}"
    if not (apart <= LOSS and turned <= GRADIENT):
        sys.exit(f"not the same, {line}; expected at most {LOSS:.0e} and {GRADIENT:.0e}")
    return line


def compared_answers(sides: Sequence[Side], eos: int, new: int) -> str:
    """How much is generated, in words; ends the benchmark where it differs or a row is shorter than `new` tokens."""
    found = [np.array(side("answers")) for side in sides]
    for answers in found:
        if answers.shape != found[0].shape or answers.shape[1] != new or (answers == eos).any():
            sys.exit(f"an answer has ended; expected {new} tokens in each row")
    if differ := int((found[0] != found[-1]).sum()):
        sys.exit(f"not the same answers: {differ} of {found[0].size} tokens differ")
    return f"answers: all {found[0].size} tokens"


# ---- few sets against all --------------------------------------------------------------------------------------------


class SetsRow(NamedTuple):
    """Tokens in a second by repeat with so many tasks learnt: under the sets chosen, and under all."""

    tasks: int
    chosen: list[float]
    all: list[float]


def measure_sets(ours: Ours, args: argparse.Namespace) -> dict[str, Any]:
    """The rows of the table; every lane has its turn in every repeat, and one before that does not count."""
    tokens, rows = args.batch * args.new, [SetsRow(tasks, [], []) for tasks in args.tasks]
    for number in range(-1, args.repeats):
        for row in rows[:: -1 if number % 2 else 1]:
            chosen, shown = ours.choose(row.tasks), ours.show_all(row.tasks)
            if number >= 0:
                row.chosen.append(tokens / chosen)
                row.all.append(tokens / shown)
    return {"same": [], "rows": rows}


def sets_table(rows: Sequence[SetsRow]) -> str:
    """Markdown: medians over the repeats, ratios with their ranges."""
    growth = f"{SETS} sets, to those of {rows[0].tasks} tasks"
    lines = [
        f"| tasks | {SETS} sets, tokens/s | all sets, tokens/s | ratio | [low, high] | {growth} |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        ratios = [few / every for few, every in zip(row.chosen, row.all, strict=True)]
        flat = statistics.median(few / first for few, first in zip(row.chosen, rows[0].chosen, strict=True))
        lines.append(
            f"| {row.tasks} | {statistics.median(row.chosen):.1f} | {statistics.median(row.all):.1f}"
            f" | {statistics.median(ratios):.2f} | [{min(ratios):.2f}, {max(ratios):.2f}] | {flat:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
