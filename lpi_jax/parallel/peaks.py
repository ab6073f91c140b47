"""What devices can compute at most: the denominator of a model's FLOPs utilisation (MFU)."""

from collections.abc import Iterable

import jax

# Beginning of JAX's `device_kind` -> bfloat16 TFLOP/s, dense: Google's pages on each TPU, NVIDIA's data sheets.
PEAKS = {
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,
    "TPU v5e": 197.0,
    "TPU v5": 459.0,
    "TPU v6 lite": 918.0,
    "TPU v6e": 918.0,
    "NVIDIA A100": 312.0,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.0,
    "NVIDIA H100": 989.0,
    "NVIDIA H200 NVL": 835.0,
    "NVIDIA H200": 989.0,
}


def peak(kind: str) -> float | None:
    """bfloat16 TFLOP/s of a device of this kind; None where they are not known, as of a CPU."""
    fitting = [name for name in PEAKS if kind.startswith(name)]
    return PEAKS[max(fitting, key=len)] if fitting else None


def together(devices: Iterable[jax.Device]) -> float | None:
    """TFLOP/s of several devices; None where one's are not known."""
    each = [peak(device.device_kind) for device in devices]
    return sum(each) if all(each) else None
