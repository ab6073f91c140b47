"""The plan: its programs are those of a run, what is read of them, and what is refused."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from lpi_jax import config as configs
from lpi_jax.errors import UserError
from lpi_jax.experiment.experiment import assemble
from lpi_jax.parallel import mesh as meshes
from lpi_jax.plan import chips
from lpi_jax.plan.command import cells, main
from lpi_jax.plan.compiled import Collective, Compiled, TooLargeError, collectives, compiled
from lpi_jax.plan.programs import programs
from lpi_jax.problems.base import Call
from lpi_jax.run import continual
from lpi_jax.train import step
from lpi_jax.types import EXPERTS, LOW
from tests.support import small_llava

ROOT = Path(__file__).parents[2]
TPU = importlib.util.find_spec("libtpu") is not None
METHODS = {
    "lpi": {},
    "l2p": {"method.chosen": 1, "method.prompt_length": 4},
    "lora": {},
    "ewc": {},
    "replay": {},
    "finetune": {},
}


@pytest.fixture(scope="module")
def mesh():
    return meshes.make_mesh(1)


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    return small_llava.written(tmp_path_factory.mktemp("llava") / "small")


class Spied:
    """A step that notes the shapes of what it is given."""

    def __init__(self, run, taken):
        self._run, self._taken = run, taken

    @property
    def flops(self):
        return self._run.flops

    def __call__(self, *given):
        self._taken.append(shapes(given))
        return self._run(*given)


def asking(llava, method="modalprompt", **changes):
    """A configuration of instruction following on a small LLaVA."""
    config = configs.preset("intended", "modalprompt")
    given = {"backbone": str(llava), "train.batch": 4, "eval.batch": 4, "eval.max_new": 3, "method.name": method}
    if method == "modalprompt":
        given |= {"method.prompts": 2}
    config.update_from_flattened_dict({**given, **changes})
    return config


def shapes(tree):
    return jax.tree.map(lambda leaf: (np.shape(leaf), str(leaf.dtype)), tree)


# ---- the programs are a run's ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_training_step_is_planned_in_the_shapes_in_which_a_run_takes_it(method, make_config, mesh, tmp_path):
    given = {"method.name": method, **METHODS[method], "data.domains": ("fax",), "train.epochs": 1, "devices": 1}
    config = make_config(given)
    planned = programs(config, mesh)["training step"].arguments
    taken, make = [], step.make_step

    def spied(*arguments):
        made = make(*arguments)
        return made._replace(run=Spied(made.run, taken))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(step, "make_step", spied)
        continual.run(config, tmp_path / "run")
    names = ("state", "frozen", "constants", "batch", "key", "rate")
    expected, found = dict(zip(names, taken[0], strict=True)), dict(zip(names, shapes(planned), strict=True))
    for name in ("state", "frozen", "constants"):
        assert found[name] == expected[name], name
    assert found["batch"].keys() == expected["batch"].keys()
    for name, (shape, kind) in expected["batch"].items():  # a plan's captions fill the context
        assert (found["batch"][name][0][0], found["batch"][name][1]) == (shape[0], kind)
        assert found["batch"][name][0] >= shape


def test_the_memory_of_a_planned_step_begins_with_what_it_is_given(make_config, mesh):
    config = make_config({"devices": 1})
    call = programs(config, mesh)["training step"]
    found = compiled(call)
    size = lambda tree: sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))  # noqa: E731
    state, frozen, constants, batch, _, rate = call.arguments  # nothing random is in this step: it takes no key
    assert found.memory["arguments"] == size((state, frozen, constants, batch, rate))
    assert found.flops > 2 * size(frozen) / 4 * config.train.batch  # each weight at least once for each row
    assert found.collectives == ()


def test_evaluation_is_planned_too_and_a_backbone_without_a_method_does_not_train(make_config, mesh):
    assert list(programs(make_config({"devices": 1}), mesh)) == ["training step", "images", "captions"]
    assert list(programs(make_config({"method.name": "zero_shot", "devices": 1}), mesh)) == ["images", "captions"]


@pytest.mark.parametrize("method", ["modalprompt", "lora", "o_lora", "moe_lora"])
def test_answers_are_planned_with_prompts_or_with_what_stands_beside_the_weights(method, llava, mesh):
    found = programs(asking(llava, method), mesh)
    assert list(found) == ["training step", "queries", "answers of 3 tokens"]
    params, asked = found["answers of 3 tokens"].arguments
    assert ("prompts" in asked) == (method == "modalprompt")
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    beside = [path for path in paths if f"'{LOW}'" in path or f"'{EXPERTS}'" in path]
    assert bool(beside) == (method != "modalprompt")
    for call in found.values():
        assert compiled(call).flops > 0


def test_a_plan_of_instructions_has_the_shapes_that_a_run_begins_with(llava, mesh):
    config = asking(llava)
    experiment = assemble(config, streamed=False)
    planned = programs(config, mesh)["training step"].arguments
    assert shapes(planned[1]) == shapes(experiment.backbone.params)
    assert planned[0].trainable["prompts"].shape == (2, 32)


def test_published_backbones_are_planned_without_their_weights(mesh):
    config = configs.preset("intended")
    config.update_from_flattened_dict({"backbone": "openai/clip-vit-base-patch16", "devices": 1})
    configs.for_any_backbone(config)
    backbone = programs(config, mesh)["training step"].arguments[1]
    assert sum(leaf.size for leaf in jax.tree.leaves(backbone)) == 149_620_737
    config = asking("llava-hf/llava-1.5-7b-hf", **{"problem.clip": "openai/clip-vit-large-patch14-336"})
    config.dtype = "bfloat16"
    backbone = programs(config, mesh)["training step"].arguments[1]
    assert 7.1e9 < sum(leaf.size for leaf in jax.tree.leaves(backbone)) < 7.4e9
    assert {leaf.dtype.name for leaf in jax.tree.leaves(backbone)} == {"bfloat16"}


# ---- what is read of a program ---------------------------------------------------------------------------------------

HLO = """
%ag.1 = f32[64,512]{1,0:T(8,128)} all-gather(%p), channel_id=3, replica_groups=mesh['a'=4,'b'=2] {'a'}, dimensions={0}
%ag.2 = f32[64,512]{1,0:T(8,128)} all-gather(%q), channel_id=3, replica_groups=mesh['a'=4,'b'=2] {'a'}, dimensions={0}
%ag.3 = bf16[8,16]{1,0} all-gather(%r), channel_id=4, replica_groups=[2,4]<=[8], dimensions={0}
%ar.1 = (f32[32]{0}, bf16[4,2]{1,0}) all-reduce(%s, %t), channel_id=5, replica_groups={{0,1},{2,3}}, to_apply=%add
%ar.2 = f32[32]{0} all-reduce(%s), channel_id=6, replica_groups=mesh['a'=4,'b'=2] {'a','b'}, to_apply=%add
%st.1 = (f32[8]{0}, f32[64]{0}) all-gather-start(%u), channel_id=7, replica_groups=[1,8]<=[8]
%cp.1 = f32[10]{0} collective-permute(%v), source_target_pairs={{0,1}}
%no.1 = f32[10]{0} add(%v, %all-gather.1)
"""


def test_collectives_are_counted_by_kind_and_by_who_takes_part_each_channel_once():
    assert collectives(HLO) == (
        Collective("all-gather", 4, 2, 64 * 512 * 4 + 8 * 16 * 2),
        Collective("all-gather", 8, 1, 256),
        Collective("all-reduce", 2, 1, 144),
        Collective("all-reduce", 8, 1, 128),
        Collective("collective-permute", 2, 1, 40),
    )


def test_the_roofline_is_the_time_of_each_part_at_its_peak():
    program = Compiled({"arguments": 8, "temporaries": 4}, 197e12, 1638e9, (Collective("all-gather", 4, 1, 10**11),))
    assert program.peak == 12
    times = program.times(chips.CHIPS["v5e"])
    assert times == {"compute": 1.0, "memory": 2.0, "links": 0.5}


# ---- the command -----------------------------------------------------------------------------------------------------


def run(*arguments):
    return main(["lpi_jax.plan", f"--config={ROOT}/configs/scenes_lpi.py", *arguments])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "--topology is missing"),
        (("--topology=v5f:2x2",), "--topology is 'v5f:2x2'; did you mean v5"),
        (("--topology=v5e",), "--topology is 'v5e', expected a kind and a shape such as v5e:2x2"),
        (("--topology=v5e:4x4,v5e:2y2",), "--topology is 'v5e:2y2', expected"),
        (("--workdir=runs/x",), "--workdir is not a flag"),
    ],
)
def test_a_mistake_is_one_sentence_and_status_2(arguments, said, capsys):
    assert run(*arguments) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1


def test_help_needs_nothing_else(capsys):
    assert main(["lpi_jax.plan", "--help"]) == 0
    assert "--topology=T[,T ...]" in capsys.readouterr().out


@pytest.mark.skipif(TPU, reason="libtpu is installed")
def test_without_the_compiler_for_tpus_it_says_what_to_install(capsys):
    assert run("--topology=v5e:2x2") == 2
    assert "pip install 'lpi_jax[tpu]'" in capsys.readouterr().err


def test_a_backbone_of_unknown_size_is_named(mesh):
    config = configs.preset("intended")
    config.update_from_flattened_dict({"backbone": "somebody/clip", "devices": 1})
    with pytest.raises(UserError, match=r"the sizes of config\.backbone somebody/clip are not known"):
        programs(config, mesh)


@pytest.mark.skipif(not TPU, reason="libtpu, the compiler for TPUs, is not installed; see the extra [tpu]")
def test_on_tpus_features_are_gathered_once_and_no_collective_is_as_large_as_the_backbone():
    found = on_tpus("--topology=v5e:2x2")
    assert found.returncode == 0, found.stderr
    row = next(line for line in found.stdout.splitlines() if "training step" in line).split("|")
    assert float(row[6]) < 16
    assert "1 all-gather among 4: 16.4 kB" in row[-2]
    assert "MB" not in row[-2]


@pytest.mark.skipif(not TPU, reason="libtpu, the compiler for TPUs, is not installed; see the extra [tpu]")
def test_on_tpus_a_batch_that_does_not_fit_is_told_with_the_largest_that_does():
    found = on_tpus("--topology=v5e:2x2", "--config.train.batch=65536", "--largest")
    assert (found.returncode, found.stderr) == (1, "")
    row = next(line for line in found.stdout.splitlines() if "training step" in line).split("|")
    assert float(row[6].replace("over", "")) > 16
    (told,) = (line for line in found.stdout.splitlines() if line.startswith("v5e:2x2: "))
    expected = r"v5e:2x2: the largest training batch found to fit is (\d+), (.+) GiB of a chip\."
    rows, needed = re.fullmatch(expected, told).groups()
    assert 4096 < int(rows) < 65536
    assert 8 < float(needed) < 16


@pytest.mark.parametrize(
    ("said", "gib"),
    [
        ("Ran out of memory on HBM, the total memory required for HLO temporaries (283.45G) exceeds available", 283.45),
        ("XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used 20.50G of 15.75G hbm.", 20.5),
    ],
)
def test_what_the_compiler_says_of_a_program_without_room_is_read(said, gib):
    def refuse():
        raise jax.errors.JaxRuntimeError(f"RESOURCE_EXHAUSTED: {said}")

    lowered = SimpleNamespace(compile=refuse)
    with pytest.raises(TooLargeError) as error:
        compiled(Call(SimpleNamespace(lower=lambda: lowered), ()))
    assert error.value.needed == pytest.approx(gib * 2**30)


def test_a_program_that_cannot_be_written_out_is_planned_without_what_chips_send():
    def unreadable():
        raise jax.errors.JaxRuntimeError("INTERNAL: async-update instruction should have 1 operands but sees 3")

    whole = jax.jit(lambda x: x @ x).lower(np.eye(8, dtype=np.float32)).compile()
    program = SimpleNamespace(
        memory_analysis=whole.memory_analysis, cost_analysis=whole.cost_analysis, as_text=unreadable
    )
    lowered = SimpleNamespace(compile=lambda: program)
    found = compiled(Call(SimpleNamespace(lower=lambda: lowered), ()))
    assert found.collectives is None
    assert found.flops > 0
    assert found.times(chips.CHIPS["v5p"]).keys() == {"compute", "memory"}
    assert [*cells(found, chips.CHIPS["v5p"])][-1].startswith("not known")


def test_another_failure_of_the_compiler_is_itself():
    def fail():
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    lowered = SimpleNamespace(compile=fail)
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL"):
        compiled(Call(SimpleNamespace(lower=lambda: lowered), ()))


@pytest.mark.skipif(not TPU, reason="libtpu, the compiler for TPUs, is not installed; see the extra [tpu]")
def test_on_tpus_a_topology_that_is_not_made_and_a_split_that_does_not_fit_are_one_sentence():
    found = on_tpus("--topology=v5e:3x5")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "which libtpu does not make" in found.stderr
    found = on_tpus("--topology=v5e:2x2", "--config.fsdp=3")
    assert (found.returncode, found.stderr.count("\n")) == (2, 1)
    assert "config.fsdp is 3, expected a divisor of the 4 chips of v5e:2x2" in found.stderr


def on_tpus(*arguments):
    """A process of its own: libtpu is loaded once, and stays."""
    command = [sys.executable, "-m", "lpi_jax.plan", f"--config={ROOT}/configs/scenes_lpi.py", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=500, cwd=ROOT)
