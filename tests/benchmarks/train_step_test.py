"""The benchmark of CLIP's training step runs, and both sides compute the same."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAST = ("--size=least", "--batch=2", "--steps=1", "--repeats=1", "--rounds=1")


@pytest.mark.parity
def test_both_sides_have_the_same_loss_and_gradients(tmp_path, compiled):
    pytest.importorskip("torch", reason="comparison with PyTorch needs the extra [parity]")
    command = [sys.executable, str(ROOT / "benchmarks" / "train_step.py"), *LEAST, f"--json={tmp_path / 'found.json'}"]
    environment = {**os.environ, **compiled, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    loss, gradient = (float(number) for number in re.findall(r"\d\.\de[-+]\d+", found["same"]))
    assert loss <= 1e-5
    assert gradient <= 1e-4
    (row,) = found["rows"]
    assert len(row["ours"]) == len(row["peer"]) == 1
    assert min(*row["ours"], *row["peer"]) > 0
    assert found["same"] in done.stdout
    assert row["what"] in done.stdout
