"""The benchmark of LLaVA's step runs, and both sides compute the same: with PyTorch, and ours alone."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LEAST = ("--size=least", "--batch=2", "--length=16", "--new=4", "--steps=1", "--repeats=1", "--device=cpu")


def run(folder: Path, compiled: dict[str, str], *arguments: str) -> tuple[str, dict]:
    """What the benchmark prints, and its JSON."""
    command = [sys.executable, str(ROOT / "benchmarks" / "llava_step.py"), *LEAST, f"--json={folder / 'found.json'}"]
    environment = {**os.environ, **compiled, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads((folder / "found.json").read_text())


@pytest.mark.parity
def test_both_sides_have_the_same_loss_gradient_and_tokens(tmp_path, compiled):
    pytest.importorskip("torch", reason="comparison with PyTorch needs the extra [parity]")
    printed, found = run(tmp_path, compiled)
    assert [line.partition(":")[0] for line in found["same"]] == ["guided", "alone", "answers"]
    for line in found["same"][:2]:
        loss, gradient = (float(number) for number in re.findall(r"\d\.\de[-+]\d+", line))
        assert loss <= 1e-5
        assert gradient <= 1e-4
    assert found["same"][2] == "answers: all 8 tokens"
    assert all(line in printed for line in found["same"])
    for row in found["rows"]:
        assert len(row["ours"]) == len(row["peer"]) == 1
        assert row["what"] in printed
        assert min(*row["ours"], *row["peer"]) > 0


def test_few_sets_are_measured_against_all(tmp_path, compiled):
    printed, found = run(tmp_path, compiled, "--sets", "--tasks", "3", "4")
    assert [row["tasks"] for row in found["rows"]] == [3, 4]
    assert all(len(row["chosen"]) == len(row["all"]) == 1 for row in found["rows"])
    assert "| 4 | " in printed
