"""Whether LLaVA-1.5-7B fits: the real training and decode steps, compiled ahead of time for TPUs that are not there.

Command:  pip install -e '.[tpu]'
          TPU_SKIP_MDS_QUERY=1 python benchmarks/llava_plan.py
          TPU_SKIP_MDS_QUERY=1 python benchmarks/llava_plan.py --topologies v5e:4x4 --batch 64 --method lora
Hardware: two CPU cores without any TPU; minutes stand in the table

Prints for each topology what a chip holds and computes, and the collectives in each program with the bytes that a chip
gets in them; ends with status 1 where a step needs more than a chip has. Sizes are those of llava-v1.5-7b with CLIP
ViT-L/14 at 336 pixels, weights bfloat16 and split over all chips (`config.fsdp`), blocks computed again in the backward
pass (`problem.remat`), every row 1,024 positions long. What is in a loop (decoding) is counted once.
"""

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from lpi_jax import config as configs
from lpi_jax.methods import lora, modalprompt, routing
from lpi_jax.methods.base import Method
from lpi_jax.models.clip import CLIPConfig, TowerConfig
from lpi_jax.models.llava.config import LlamaConfig, LlavaConfig
from lpi_jax.models.llava.generation import generate
from lpi_jax.models.llava.llava import Inputs, LLaVA, param_shapes
from lpi_jax.options import chosen
from lpi_jax.parallel import mesh as meshes
from lpi_jax.parallel.placement import placing
from lpi_jax.problems.instruction.problem import Instruction
from lpi_jax.train import optimizer
from lpi_jax.train.step import TrainState, make_step
from lpi_jax.types import Tree

GIB = 2**30
CHIPS = {"v5e": 16, "v5p": 95, "v4": 32, "v6e": 32}  # GiB of memory
CLIP_L = CLIPConfig(336, 14, 768, TowerConfig(1024, 24, 16, 4096), TowerConfig(768, 12, 12, 3072), 49408)
LLAVA_7B = LlavaConfig(CLIP_L, LlamaConfig(32000, 4096, 32, 32, 32, 11008), max_length=2048)
QUESTION, TASKS = 419, 8  # ids of a conversation: 1,024 positions with 576 of the image and 30 prompts
COLLECTIVE = re.compile(r"= (.*?) (all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\(")
SHAPE = re.compile(r"(pred|[suf]\d+|bf16)\[([\d,]*)\]")


class Compiled(NamedTuple):
    """A step: GiB of a chip's memory by what is in it, TFLOP of a chip, collectives by kind, seconds of compiling."""

    memory: dict[str, float]
    tflop: float
    collectives: dict[str, tuple[int, float]]
    seconds: float

    @property
    def peak(self) -> float:
        """GiB."""
        return sum(self.memory.values())


def main() -> None:
    """Prints a row for each topology and step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--topologies", nargs="+", default=["v5e:4x4", "v5p:2x2x2"])
    parser.add_argument("--batch", type=int, default=0, help="rows of a training batch; 0: two a chip")
    parser.add_argument("--method", choices=("modalprompt", "lora"), default="modalprompt")
    parser.add_argument("--new", type=int, default=128, help="tokens of an answer")
    parser.add_argument("--layers", type=int, default=32, help="fewer of the LLaMA's blocks, to try things")
    args = parser.parse_args()
    columns = ("chips", "step", "rows", "GiB a chip", "arguments", "has", "TFLOP a chip", "collectives", "s to compile")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    fits = True
    for name in args.topologies:
        kind = name.partition(":")[0]
        mesh = topology(name)
        for step, compiled in steps(mesh, args):
            fits &= compiled.peak < CHIPS[kind]
            rows = args.batch or 2 * mesh.size
            moved = ", ".join(f"{count} {what} {size:.2f} GiB" for what, (count, size) in compiled.collectives.items())
            memory = f"{compiled.peak:.1f} | {compiled.memory['arguments']:.1f} | {CHIPS[kind]}"
            rest = f"{compiled.tflop:.1f} | {moved} | {compiled.seconds:.0f}"
            print(f"| {name} | {step} | {rows} | {memory} | {rest} |", flush=True)
    sys.exit(0 if fits else 1)


def topology(name: str) -> Mesh:
    """All chips of "v5e:4x4" or the like as one group that shares the backbone."""
    devices = topologies.get_topology_desc(platform="tpu", topology_name=name).devices
    return meshes.mesh_of(devices, len(devices))


def steps(mesh: Mesh, args: argparse.Namespace) -> Iterable[tuple[str, Compiled]]:
    """The training step of the method, then the decoding of whole answers."""
    llama = LlamaConfig(**{**vars(LLAVA_7B.llama), "layers": args.layers})
    llava = LlavaConfig(**{**vars(LLAVA_7B), "llama": llama})
    problem = Instruction(LLaVA(llava, jnp.bfloat16, "default", remat=True))
    method = METHODS[args.method](problem)
    frozen = placed(param_shapes(llava), mesh)
    rows = args.batch or 2 * mesh.size
    yield "train", train(problem, method, frozen, mesh, rows)
    yield f"answer, {args.new} tokens", answer(problem, method, frozen, mesh, rows, args.new)


def _modalprompt(problem: Instruction) -> Method:
    return modalprompt.build(modalprompt.Options(), problem.sites, routing.Options())


def _lora(problem: Instruction) -> Method:
    return lora.build(lora.Options(rank=16), problem.sites, routing.Options())


METHODS = {"modalprompt": _modalprompt, "lora": _lora}


def placed(shapes: Tree, mesh: Mesh) -> Tree:
    """The backbone's leaves as bfloat16 arrays that are not there, placed as a run places them."""
    place = placing(mesh)

    def leaf(path: Any, value: Any) -> jax.ShapeDtypeStruct:
        where = place(tuple(step.key for step in path), value.shape)
        return jax.ShapeDtypeStruct(value.shape, jnp.bfloat16, sharding=where)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def train(problem: Instruction, method: Method, frozen: Tree, mesh: Mesh, rows: int) -> Compiled:
    """The step that a run takes (`lpi_jax.train.step.make_step`)."""
    config = problem.model.config
    trainable, constants = jax.eval_shape(lambda table: begun(method, frozen, table), table_of(frozen))
    step = make_step(problem, method, optimizer.make_optimizer(training()), mesh)
    start = jax.eval_shape(step.optimizer.init, trainable)
    state = TrainState(trainable, start, jax.ShapeDtypeStruct((), np.int32))
    batch = {
        **asked(config, rows),
        "labels": jax.ShapeDtypeStruct((rows, QUESTION), np.int32),
        "question_ids": jax.ShapeDtypeStruct((rows, config.clip.context_length), np.int32),
    }
    key = jax.eval_shape(lambda: jax.random.key(0))
    rate = jax.ShapeDtypeStruct((), np.float32)
    return compiled(step.run, state, frozen, constants, batch, key, rate)


def begun(method: Method, frozen: Tree, table: Any) -> tuple[Tree, Tree]:
    """What a task begins with: the method's own functions, on shapes."""
    config = LLAVA_7B
    if method.name == "lora":
        return lora.init(method.options, frozen, jax.random.key(0)), {}
    width = config.clip.embed_dim
    one = modalprompt.init_transform(jax.random.key(0), table.shape[1], width)
    prompts = jnp.zeros((method.options.prompts, table.shape[1]), jnp.float32)
    room = modalprompt.memories.capacity(TASKS)
    constants = {
        "prompts": jnp.zeros((room, *prompts.shape), jnp.float32),
        "prototypes": jnp.zeros((room, width), jnp.float32),
        "count": jnp.int32(TASKS),
    }
    return {"prompts": prompts, "transform": one}, constants


def answer(problem: Instruction, method: Method, frozen: Tree, mesh: Mesh, rows: int, new: int) -> Compiled:
    """Whole answers, as a run generates them."""
    config = problem.model.config
    batch = asked(config, rows)
    if method.name == "modalprompt":
        tokens = method.options.sets * method.options.prompts
        batch["prompts"] = jax.ShapeDtypeStruct((rows, 1, tokens, config.llama.width), np.float32)
        batch["present"] = jax.ShapeDtypeStruct((rows, tokens), np.bool_)

    def run(params: Tree, batch: Tree) -> jax.Array:
        return generate(problem.model, params, Inputs(**batch), new).ids

    jitted = jax.jit(run, in_shardings=(None, meshes.split(mesh)), out_shardings=meshes.replicated(mesh))
    return compiled(jitted, frozen, batch)


def asked(config: LlavaConfig, rows: int) -> dict[str, jax.ShapeDtypeStruct]:
    """What a batch shows, without what is answered."""
    size = config.clip.image_size
    return {
        "ids": jax.ShapeDtypeStruct((rows, QUESTION), np.int32),
        "images": jax.ShapeDtypeStruct((rows, size, size, 3), np.float32),
        "has_image": jax.ShapeDtypeStruct((rows,), np.bool_),
        "length": jax.ShapeDtypeStruct((rows,), np.int32),
    }


def training() -> optimizer.Options:
    """Those of the preset `intended`."""
    return chosen(optimizer.Options, configs.preset("intended", "modalprompt").train)


def table_of(frozen: Tree) -> Any:
    """[V, D], the vocabulary's embeddings."""
    return modalprompt.vocabulary(frozen)


def compiled(jitted: Any, *arguments: Any) -> Compiled:
    """Compiles without running."""
    began = time.perf_counter()
    program = jitted.lower(*arguments).compile()
    seconds = time.perf_counter() - began
    size = program.memory_analysis()
    memory = {
        "arguments": size.argument_size_in_bytes / GIB,
        "results": max(0, size.output_size_in_bytes - size.alias_size_in_bytes) / GIB,
        "temporaries": size.temp_size_in_bytes / GIB,
        "program": size.generated_code_size_in_bytes / GIB,
    }
    flops = program.cost_analysis().get("flops", float("nan"))
    return Compiled(memory, flops / 1e12, collectives(program.as_text()), seconds)


def collectives(text: str) -> dict[str, tuple[int, float]]:
    """Of a program's text by kind: how many there are, and GiB of what a chip gets in them, each counted once."""
    count, size = Counter(), Counter()
    for shapes, kind in COLLECTIVE.findall(text):
        count[kind] += 1
        size[kind] += sum(bytes_of(*found) for found in SHAPE.findall(shapes)) / GIB
    return {kind: (count[kind], size[kind]) for kind in sorted(count)}


def bytes_of(dtype: str, axes: str) -> int:
    """Of an array written as bf16[128,4096]."""
    bits = {"pred": 8, "bf16": 16}.get(dtype) or int(re.sub(r"\D", "", dtype))
    return bits // 8 * int(np.prod([int(axis) for axis in axes.split(",") if axis], dtype=np.int64))


if __name__ == "__main__":
    main()
