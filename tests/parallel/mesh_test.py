"""Devices: the same features on eight as on one, and what cannot be split over them is refused.

Eight CPU devices have to be asked for before JAX starts: one process of its own makes all measurements.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from lpi_jax.errors import UserError
from lpi_jax.parallel import mesh as meshes

EIGHT_DEVICES = """
import contextlib, io, json, sys
import jax, numpy as np
jax.config.update("jax_num_cpu_devices", 8)
from lpi_jax.main import main
from lpi_jax.models import weights
from lpi_jax.models.clip import CLIP
from lpi_jax.models.tokenizer import Tokenizer
from lpi_jax.parallel import mesh as meshes
from lpi_jax.parallel.placement import put_backbone
from lpi_jax.methods import routing, zero_shot
from lpi_jax.problems.retrieval.adapters import Group
from lpi_jax.problems.retrieval.encoder import Encoder
from lpi_jax.problems.retrieval.towers import Towers

backbone, config_file, workdir = sys.argv[1:]
config, params = weights.load(backbone)
pictures = np.random.default_rng(0).integers(0, 256, (19, 32, 32, 3), np.uint8)
words = [f"{'a red circle left of ' * (i % 4)} a blue square {i}" for i in range(19)]
ids, _ = Tokenizer.load(backbone).encode(words, 4)
prompts = np.random.default_rng(1).normal(size=(1, 2, 4, 32)).astype(np.float32)
found = {}
for devices, fsdp in ((1, 1), (8, 1), (8, 4)):
    mesh = meshes.make_mesh(devices, fsdp)
    towers, method = Towers(CLIP(config), (0.5,) * 3, (0.25,) * 3), zero_shot.build(None, {}, routing.Options())
    encoder = Encoder(towers, put_backbone(params, mesh), method, mesh, 8)
    found[devices, fsdp] = [
        encoder.images(pictures.__getitem__, range(19)),
        encoder.images(pictures.__getitem__, range(19), Group(None, encoder.frozen, prompts)),
        encoder.texts(ids),
    ]

whole = meshes.make_mesh()
rows = np.arange(24, dtype=np.int32).reshape(8, 3)
split, everywhere = meshes.put_rows({"rows": rows}, whole)["rows"], meshes.put_replicated(rows, whole)

def status(*changes):
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(["lpi_jax.main", f"--config={config_file}", f"--workdir={workdir}", *changes])
    return code, said.getvalue()

print(json.dumps({
    "devices": whole.size,
    "axes": dict(whole.shape),
    "difference": [float(np.abs(a - b).max()) for many in ((8, 1), (8, 4)) for a, b in zip(found[1, 1], found[many])],
    "on one": sum(leaf.addressable_shards[0].data.size for leaf in jax.tree.leaves(encoder.frozen)),
    "all": sum(leaf.size for leaf in jax.tree.leaves(encoder.frozen)),
    "fingerprints": [weights.fingerprint(params), weights.fingerprint(encoder.frozen)],
    "split": sorted(shard.data.tolist() for shard in split.addressable_shards),
    "replicated": [shard.data.tolist() for shard in everywhere.addressable_shards],
    "train batch": status("--config.train.batch=12"),
    "eval batch": status("--config.eval.batch=12"),
    "devices of three": status("--config.devices=3"),
    "too many": status("--config.devices=9"),
    "groups of three": status("--config.fsdp=3"),
}))
"""


@pytest.fixture(scope="module")
def eight(tiny_clip, tmp_path_factory):
    """What a process with eight CPU devices found, and the directory its refused runs were to use."""
    folder = tmp_path_factory.mktemp("eight")
    config = folder / "small.py"
    config.write_text(
        "from lpi_jax import config as configs\n"
        "def get_config():\n"
        "    config = configs.intended()\n"
        f"    config.update_from_flattened_dict({{'backbone': {str(tiny_clip)!r}, 'method.length': 4,\n"
        "        'method.layers': 2, 'method.depth': 2, 'train.batch': 16, 'eval.batch': 32})\n"
        "    return config\n",
        encoding="utf-8",
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", EIGHT_DEVICES, str(tiny_clip), str(config), str(folder / "run")]
    environment = {**os.environ, "PYTHONPATH": str(root), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1]), folder


def test_features_are_equal_on_one_device_and_on_eight(eight):
    found, _ = eight
    assert found["devices"] == 8
    assert found["axes"] == {"data": 8, "fsdp": 1}
    assert max(found["difference"]) <= 1e-6


def test_batches_are_split_and_weights_are_everywhere(eight):
    found, _ = eight
    assert found["split"] == [[[3 * i, 3 * i + 1, 3 * i + 2]] for i in range(8)]
    assert found["replicated"] == [np.arange(24).reshape(8, 3).tolist()] * 8


def test_devices_that_share_a_backbone_have_parts_of_its_matrices(eight):
    found, _ = eight
    assert found["on one"] < 0.5 * found["all"]  # a quarter of the matrices, all of the rest
    assert found["fingerprints"][0] == found["fingerprints"][1]


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (
            "train batch",
            "error: config.train.batch is 12, expected a multiple of the 8 devices it is split over; use"
            " --config.train.batch=8\n",
        ),
        (
            "eval batch",
            "error: config.eval.batch is 12, expected a multiple of the 8 devices it is split over; use"
            " --config.eval.batch=8\n",
        ),
        (
            "devices of three",
            "error: config.train.batch is 16, expected a multiple of the 3 devices it is split over; use"
            " --config.train.batch=15\n",
        ),
        ("groups of three", "error: config.fsdp is 3, expected a divisor of the number of devices, 8\n"),
        ("too many", "error: config.devices is 9, expected 0 (all) to 8, the devices found here\n"),
    ],
)
def test_a_run_that_cannot_be_split_is_refused_before_it_writes(eight, what, message):
    found, folder = eight
    assert found[what] == [2, message]
    assert not (folder / "run").exists()


def test_zero_means_all_devices_and_more_than_all_is_refused():
    available = len(jax.devices())
    assert meshes.make_mesh().size == meshes.make_mesh(0).size == available
    assert meshes.make_mesh(1).size == 1
    for devices in (available + 1, -1):
        with pytest.raises(UserError, match=rf"^config\.devices is {devices}, expected 0 \(all\) to {available}, the"):
            meshes.make_mesh(devices)


@pytest.mark.parametrize("size", [0, -1])
def test_a_batch_has_at_least_a_row(size):
    with pytest.raises(UserError, match=rf"^config\.train\.batch is {size}, expected a multiple of the 1 devices"):
        meshes.check_batch("config.train.batch", size, meshes.make_mesh(1))


def test_what_is_placed_keeps_its_values():
    mesh = meshes.make_mesh(1)
    tree = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3), "b": (np.int32([1, 2]),)}
    for placed in (meshes.put_replicated(tree, mesh), meshes.put_rows(tree, mesh)):
        np.testing.assert_array_equal(placed["a"], tree["a"], strict=True)
        np.testing.assert_array_equal(placed["b"][0], tree["b"][0], strict=True)
