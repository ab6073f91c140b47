"""What a process with several CPU devices finds: they have to be asked for before JAX starts."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def found(count: int, imports: str, expression: str, seconds: int = 300) -> Any:
    """The value of an expression, through JSON, in a process with so many devices; imports: a line before it."""
    program = f"import json, jax\n{imports}\nassert len(jax.devices()) == {count}\nprint(json.dumps({expression}))\n"
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(count), "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=ROOT, env=environment, timeout=seconds, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])
