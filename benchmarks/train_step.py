"""A training step of LPI on CLIP beside PyTorch: pairs a second in several fresh processes.

Command:  GLIBC_TUNABLES=glibc.malloc.hugetlb=1 python benchmarks/train_step.py [--size b16] [--json FILE]
          python benchmarks/train_step.py --dtype bfloat16 --batch 256 --compile    (on a GPU)
Hardware: two CPU cores with nothing else to do; or a GPU, which the peer needs a PyTorch for
Minutes:  the line of the hardware says how many it took

Both sides train the low-rank factors of the prompts of both towers (the preset `intended`, without the losses between
prompts) by the retrieval loss and SGD; the same random weights, frozen. The peer (benchmarks/peers/clip_torch.py;
extra [bench]) is CLIP of `transformers` whose prompts enter by hooks, with PyTorch's own attention; in bfloat16 under
autocast, with --compile through torch.compile. Before the clock runs both must have the same loss and the same gradient
of every factor (in float32), or the benchmark ends with an error.

Equal processes differ, so that every round starts both sides afresh. In a round they take turns, the other first in
every second repeat. Shown are medians over all repeats of all rounds, of the ratio also the range, and the medians of
each round.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from contextlib import ExitStack
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import numpy as np
from beside import Row, cores, few, on, serve, started, table, turn
from loader import processor

from lpi_jax.data.transforms import CLIP_MEAN, CLIP_STD, normalise
from lpi_jax.methods import lpi, routing
from lpi_jax.methods.base import TaskContext
from lpi_jax.models import weights
from lpi_jax.models.clip import CLIP, CLIPConfig, TowerConfig
from lpi_jax.models.clip_start import init_params
from lpi_jax.models.kept import kept
from lpi_jax.parallel import mesh as meshes
from lpi_jax.parallel.placement import put_backbone
from lpi_jax.problems.retrieval.problem import Retrieval
from lpi_jax.problems.retrieval.towers import Towers
from lpi_jax.train import optimizer as optimizers
from lpi_jax.train.step import Task, fit, make_gradient, make_step

ROOM = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}  # on a GPU that both sides share
PEER = Path(__file__).parent / "peers" / "clip_torch.py"
SEED, LR, LOSS, GRADIENT = 0, 0.05, 1e-5, 1e-4  # the last two: largest relative differences between the sides
SIZES = {
    "least": CLIPConfig(28, 7, 16, TowerConfig(32, 3, 4, 40), TowerConfig(16, 3, 2, 24), 60, 24),
    "tiny": CLIPConfig(60, 10, 128, TowerConfig(192, 4, 3, 768), TowerConfig(128, 4, 2, 512), 2048),
    "b16": CLIPConfig(224, 16, 512, TowerConfig(768, 12, 12, 3072), TowerConfig(512, 12, 8, 2048), 49408),
}


def main() -> None:
    """Checks, measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="b16")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=0, help="of a caption, with its prompts; 0: the whole context")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--compile", action="store_true", help="the peer through torch.compile")
    parser.add_argument("--steps", type=int, default=2, help="training steps of a turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns of a round")
    parser.add_argument("--rounds", type=int, default=3, help="fresh processes of each side")
    parser.add_argument("--threads", type=int, default=2, help="CPU cores that each side may use")
    parser.add_argument("--json", type=Path, help="a file to write the numbers to")
    parser.add_argument("--serve", type=Path, help=argparse.SUPPRESS)  # works as one side, on what lies there
    args = parser.parse_args()
    if args.serve:
        serve(lambda: Ours(args.serve))
        return
    if min(args.batch, args.steps, args.repeats, args.rounds, args.threads) < 1:
        parser.error("all numbers must be 1 or more")
    began = time.perf_counter()
    on(args.threads)
    with tempfile.TemporaryDirectory() as name:
        write_work(Path(name), args)
        found = [measured(Path(name), args) for _ in range(args.rounds)]
    ours, peer = ([rate for one in found for rate in one[side]] for side in ("ours", "peer"))
    row = Row("training step, pairs/s", ours, peer)
    told = {
        "command": " ".join(["python", *sys.argv]),
        "hardware": f"{found[0]['device']}; {len(cores())} cores, {processor()}",
        "minutes": (time.perf_counter() - began) / 60,
        "same": found[0]["same"],
        "rows": [row._asdict()],
        "rounds": found,
    }
    print(f"Command:  {told['command']}\nHardware: {told['hardware']}; {told['minutes']:.1f} minutes")
    print(f"Same:     {told['same']}\n\n{table([row])}\n")
    for number, one in enumerate(found, 1):
        sides = [few(statistics.median(one[side])) for side in ("ours", "peer") if one[side]]
        print(f"round {number}: {' and '.join(sides)} pairs/s")
    if args.json:
        args.json.write_text(json.dumps(told, indent=1))


def write_work(folder: Path, args: argparse.Namespace) -> None:
    """A random CLIP as Hugging Face's directory, a batch, a task's factors, and what both sides are told."""
    config = SIZES[args.size]
    params = jax.tree.map(np.array, init_params(config, jax.random.key(SEED)))
    weights.save(folder, config, params)
    rng, length = np.random.default_rng(SEED), args.tokens or config.context_length
    ids = rng.integers(1, config.vocab_size - 2, (args.batch, length), np.int32)
    ids[:, 0], ids[:, -1] = config.vocab_size - 2, config.vocab_size - 1
    images = rng.integers(0, 256, (args.batch, config.image_size, config.image_size, 3), np.uint8)
    pixels = np.asarray(normalise(images, CLIP_MEAN, CLIP_STD), np.float32).transpose(0, 3, 1, 2)
    made = method(config)
    tree, _ = made.begin(jax.random.key(SEED), {}, params, context(config))
    factors = {f"factor/{name}": np.asarray(leaf) for name, leaf in tree["factors"].items()}
    np.savez(folder / "work.npz", images=images, pixels=np.ascontiguousarray(pixels), ids=ids, **factors)
    options = made.options
    settings = {
        **{name: getattr(args, name) for name in ("size", "dtype", "compile", "threads")},
        "lr": LR,
        "depth": options.depth,
        "length": options.length,
        "scale": float(np.exp(params["logit_scale"])),
    }
    (folder / "settings.json").write_text(json.dumps(settings))


def method(config: CLIPConfig) -> Any:
    """LPI with as many prompts as fit, no loss between prompts."""
    problem = Retrieval(Towers(CLIP(config), CLIP_MEAN, CLIP_STD), None, None, None, None)
    options = lpi.Options(length=0, layers=0, depth=0, alignment_weight=0.0, task_weight=0.0)
    return lpi.build(options, problem.sites, routing.Options())


def context(config: CLIPConfig) -> TaskContext:
    """The first task; of what it holds the method looks at the meaning alone."""
    meaning = np.eye(1, config.embed_dim, dtype=np.float32)[0]
    return TaskContext(0, ("task",), meaning, 1, SEED, dict, lambda count: iter(()), lambda *_: {})


# ---- ours ------------------------------------------------------------------------------------------------------------


class Ours:
    """This package's step on what `write_work` wrote."""

    def __init__(self, folder: Path) -> None:
        settings = json.loads((folder / "settings.json").read_text())
        config, params = weights.load(folder)
        mesh = meshes.make_mesh(1)
        precision = "highest" if settings["dtype"] == "float32" else "default"
        model = CLIP(config, dtype=jax.numpy.dtype(settings["dtype"]), precision=precision)
        problem, self._method = Retrieval(Towers(model, CLIP_MEAN, CLIP_STD), None, None, None, None), method(config)
        with np.load(folder / "work.npz") as file:
            self._batch = {"images": file["images"], "token_ids": file["ids"]}
        frozen = put_backbone(params, mesh, partial(kept, dtype=settings["dtype"]))
        tree, constants = self._method.begin(jax.random.key(SEED), {}, params, context(config))
        self._tree, key = jax.tree.map(np.asarray, tree), jax.random.key(SEED)
        options = optimizers.Options(optimizer_args={"momentum": 0.0, "weight_decay": 0.0})
        self._step = make_step(problem, self._method, optimizers.make_optimizer(options), mesh)
        self._gradient = make_gradient(problem, self._method, mesh)
        self._task = Task(frozen, constants, key, lambda _: LR)
        self._state = self._step.start(tree)

    def device(self) -> str:
        """What it computes on, as PyTorch calls it."""
        return {"gpu": "cuda"}.get(jax.devices()[0].platform, jax.devices()[0].platform)

    def named(self) -> str:
        """The device's name."""
        return jax.devices()[0].device_kind

    def first(self) -> dict[str, Any]:
        """Loss of the first step, and the gradient of every factor."""
        task, losses = self._task, []
        gradient = self._gradient(self._tree, task.constants, task.frozen, self._batch, task.key)
        rows = [self._batch]
        self._state = fit(self._state, self._step, task, rows, lambda *made: losses.append(float(made[2]["retrieval"])))
        return {"loss": losses[0], "gradient": {k: np.asarray(v).tolist() for k, v in gradient["factors"].items()}}

    def train(self, steps: int) -> float:
        """Seconds of one step, the mean of so many behind one that does not count."""

        def ahead(count: int) -> None:
            self._state = fit(self._state, self._step, self._task, [self._batch] * count, lambda *_: None)
            jax.block_until_ready(self._state)

        ahead(1)
        began = time.perf_counter()
        ahead(steps)
        return (time.perf_counter() - began) / steps


# ---- beside the peer -------------------------------------------------------------------------------------------------


def measured(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """One round: pairs a second by repeat of each side, from two fresh processes; of ours alone without PyTorch."""
    with ExitStack() as stack:
        ours = stack.enter_context(started([sys.executable, __file__, "--serve", str(folder)], ROOM))
        sides, device = {"ours": ours}, ours("device")
        if find_spec("torch") is None:
            print("PyTorch is not installed: the peer is left out", file=sys.stderr)
        else:
            peer = stack.enter_context(started([sys.executable, str(PEER), str(folder)]))
            if peer("device") == device:
                sides["peer"] = peer
            else:
                print(f"PyTorch computes on {peer('device')}, not on {device}: it is left out", file=sys.stderr)
        same = compared({name: side("first") for name, side in sides.items()}, args.dtype == "float32")
        rates: dict[str, list[float]] = {"ours": [], "peer": []}
        for number in range(args.repeats):
            for name in list(sides)[:: -1 if number % 2 else 1]:
                rates[name].append(args.batch / turn(sides[name], ("train", args.steps)))
        return {"device": ours("named"), "same": same, **rates}


def compared(found: dict[str, Any], exact: bool) -> str:
    """How far apart the sides' first steps are, in words; ends the benchmark where they should be the same."""
    if len(found) < 2:
        return "there is one side alone"
    ours, peer = found["ours"], found["peer"]
    apart, turned = abs(ours["loss"] / peer["loss"] - 1), 0.0
    for name, theirs in peer["gradient"].items():
        own, other = np.array(ours["gradient"][name]), np.array(theirs)
        turned = max(turned, float(np.linalg.norm(own - other) / np.linalg.norm(other)))
    line = f"loss {ours['loss']:.6f}, relatively {apart:.1e} apart, gradients of the factors at most {turned:.1e}"
    if exact and not (apart <= LOSS and turned <= GRADIENT):
        sys.exit(f"not the same: {line}; expected at most {LOSS:.0e} and {GRADIENT:.0e}")
    return line


if __name__ == "__main__":
    main()
