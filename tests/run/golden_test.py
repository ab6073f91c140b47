"""The presets `intended` and `released` compute what they computed before `anchored` was added.

The losses of a short run on the bundled backbone, step by step, as the code before (6d43f22) printed them: on one
machine features, losses and recall are equal to the last bit. Another processor rounds otherwise.
"""

import json

import pytest

from lpi_jax.config import command_line
from lpi_jax.run import continual
from tests.conftest import ROOT

SMALL = {
    "data.domains": ("fax", "comic"),
    "data.train": 16,
    "data.val": 8,
    "train.batch": 16,
    "train.epochs": 1,
    "train.log_every": 1,
}
# Retrieval, alignment and task loss of every step, in nats.
LOSSES = {
    "intended": [
        (1.32285, 2.60866, 0.00000),
        (1.76444, 1.77529, 0.00000),
        (2.68756, 0.66653, 0.00000),
        (1.71359, 3.73048, 0.06731),
        (3.09385, 0.77204, 0.07894),
        (3.17863, 0.10530, 0.08462),
    ],
    "released": [
        (2.93410, 0.13746, 0.00000),
        (3.09092, 0.13678, 0.00000),
        (3.38773, 0.13566, 0.00000),
        (2.20451, 0.13164, 0.10807),
        (3.17351, 0.13133, 0.10482),
        (2.97499, 0.13030, 0.10262),
    ],
}


@pytest.mark.parametrize("name", LOSSES)
def test_the_losses_of_earlier_presets_stay(name, compiled, tmp_path):
    config = command_line.load(f"{ROOT / 'configs' / 'scenes_lpi.py'}:{name}")
    config.update_from_flattened_dict(SMALL)
    continual.run(config, tmp_path / "run")
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    found = [(line["retrieval"], line["align"], line["task"]) for line in lines if "loss" in line]
    assert found == [pytest.approx(expected, rel=1e-3, abs=1e-3) for expected in LOSSES[name]]
