"""The silhouettes of the scenes' objects: every shape is a few polygons in the unit square.

Coordinates are in units of the object's radius, y grows downwards, and every shape stays within [-1, 1]. Parts are
laid over each other in order; a part with `ink=False` cuts a hole.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, eq=False)
class Part:
    """points: [N, 2] float64 corners of one polygon; ink: whether it fills or cuts."""

    points: np.ndarray
    ink: bool = True


def _arc(cx: float, cy: float, rx: float, ry: float, start: float = 0, stop: float = 360, n: int = 36) -> np.ndarray:
    """[n, 2] points of an elliptic arc; degrees, clockwise on the screen from three o'clock."""
    angle = np.deg2rad(np.linspace(start, stop, n, endpoint=stop - start < 360))
    return np.stack([cx + rx * np.cos(angle), cy + ry * np.sin(angle)], axis=1)


def _polygon(*corners: tuple[float, float]) -> np.ndarray:
    return np.asarray(corners, np.float64)


def _box(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return _polygon((x0, y0), (x1, y0), (x1, y1), (x0, y1))


def _star(points: int, inner: float) -> np.ndarray:
    angle = np.deg2rad(-90 + np.arange(2 * points) * 180 / points)
    radius = np.where(np.arange(2 * points) % 2 == 0, 1.0, inner)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1)


def _heart() -> np.ndarray:
    t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    x = 16 * np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) - 2.5
    return np.stack([x, y], axis=1) / 16.5


def _moon() -> np.ndarray:
    outer, tip = _arc(0, 0, 1, 1, 50, 310), np.deg2rad(50)
    radius = float(np.hypot(np.cos(tip) - 0.5, np.sin(tip)))
    half = float(np.rad2deg(np.arctan2(np.sin(tip), np.cos(tip) - 0.5)))
    crescent = np.concatenate([outer, _arc(0.5, 0, radius, radius, 360 - half, half)])
    return crescent + np.asarray([0.18, 0])


def _leaf() -> np.ndarray:
    t = np.concatenate([np.linspace(-1, 1, 16), np.linspace(1, -1, 16)[1:-1]])
    half = 0.58 * np.cos(t * np.pi / 2) * np.repeat([1, -1], [16, 14])
    return np.stack([t + half, half - t], axis=1) * 0.8  # pointing up to the right


def _shape(*parts: np.ndarray, holes: tuple[np.ndarray, ...] = ()) -> tuple[Part, ...]:
    return tuple(Part(p) for p in parts) + tuple(Part(p, ink=False) for p in holes)


# Seen in general scenes.
_GENERAL = {
    "circle": _shape(_arc(0, 0, 0.97, 0.97)),
    "square": _shape(_box(-0.85, -0.85, 0.85, 0.85)),
    "triangle": _shape(_polygon((0, -0.95), (0.98, 0.8), (-0.98, 0.8))),
    "star": _shape(_star(5, 0.42)),
    "cross": _shape(_box(-0.33, -0.95, 0.33, 0.95), _box(-0.95, -0.33, 0.95, 0.33)),
    "heart": _shape(_heart()),
    "diamond": _shape(_polygon((0, -1), (0.72, 0), (0, 1), (-0.72, 0))),
    "ring": _shape(_arc(0, 0, 0.97, 0.97), holes=(_arc(0, 0, 0.48, 0.48),)),
    "moon": _shape(_moon()),
    "arrow": _shape(
        _polygon((-0.95, -0.3), (0.05, -0.3), (0.05, -0.85), (0.98, 0), (0.05, 0.85), (0.05, 0.3), (-0.95, 0.3))
    ),
    "house": _shape(
        _polygon((0, -0.98), (0.95, -0.15), (0.72, -0.15), (0.72, 0.9), (-0.72, 0.9), (-0.72, -0.15), (-0.95, -0.15)),
        holes=(_box(-0.22, 0.3, 0.22, 0.9),),
    ),
    "tree": _shape(
        _box(-0.2, 0.45, 0.2, 0.98),
        _polygon((0, -1), (0.62, -0.2), (-0.62, -0.2)),
        _polygon((0, -0.55), (0.88, 0.5), (-0.88, 0.5)),
    ),
    "fish": _shape(
        _arc(-0.22, 0, 0.76, 0.55),
        _polygon((0.3, 0), (0.98, -0.6), (0.98, 0.6)),
        holes=(_arc(-0.58, -0.14, 0.13, 0.13, n=12),),
    ),
    "mushroom": _shape(
        np.concatenate([_arc(0, 0.05, 0.95, 0.95, 180, 360, 20)]),
        _polygon((-0.3, 0), (0.3, 0), (0.38, 0.95), (-0.38, 0.95)),
    ),
}

# Met only in domains.
_NEW = {
    "hexagon": _shape(_arc(0, 0, 0.97, 0.97, n=6)),
    "key": _shape(
        _arc(-0.52, 0, 0.46, 0.46),
        _box(-0.15, -0.14, 0.98, 0.14),
        _box(0.42, 0.1, 0.6, 0.5),
        _box(0.78, 0.1, 0.98, 0.5),
        holes=(_arc(-0.52, 0, 0.2, 0.2, n=16),),
    ),
    "boat": _shape(
        _polygon((-0.98, 0.3), (0.98, 0.3), (0.6, 0.9), (-0.6, 0.9)),
        _box(-0.1, -0.95, 0.06, 0.4),
        _polygon((0.12, -0.85), (0.8, 0.14), (0.12, 0.14)),
    ),
    "flower": _shape(
        *(_arc(0.56 * np.sin(k * 1.2566), -0.56 * np.cos(k * 1.2566), 0.42, 0.42, n=20) for k in range(5)),
        _arc(0, 0, 0.4, 0.4, n=16),
        holes=(_arc(0, 0, 0.22, 0.22, n=16),),
    ),
    "bell": _shape(
        np.concatenate(
            [_arc(0, -0.3, 0.55, 0.6, 180, 360, 20), _polygon((0.62, 0.3), (0.95, 0.62), (-0.95, 0.62), (-0.62, 0.3))]
        ),
        _arc(0, 0.74, 0.22, 0.22, n=16),
    ),
    "cloud": _shape(_arc(-0.45, 0.15, 0.5, 0.42), _arc(0.45, 0.15, 0.5, 0.42), _arc(0, -0.15, 0.5, 0.5)),
    "crown": _shape(
        _polygon((-0.9, 0.75), (-0.95, -0.6), (-0.45, 0.05), (0, -0.85), (0.45, 0.05), (0.95, -0.6), (0.9, 0.75))
    ),
    "bolt": _shape(
        _polygon((0.2, -1), (-0.6, 0.15), (-0.05, 0.15), (-0.3, 1), (0.62, -0.25), (0.08, -0.25), (0.5, -1))
    ),
    "leaf": _shape(_leaf(), _polygon((-0.98, 0.86), (-0.86, 0.98), (-0.55, 0.68), (-0.68, 0.55))),
    "flag": _shape(_box(-0.85, -0.95, -0.6, 0.98), _polygon((-0.65, -0.9), (0.95, -0.4), (-0.65, 0.2))),
    "cup": _shape(
        _arc(0.5, -0.05, 0.45, 0.45),
        _polygon((-0.9, -0.7), (0.55, -0.7), (0.4, 0.8), (-0.75, 0.8)),
        holes=(_polygon((0.58, -0.3), (0.75, -0.05), (0.53, 0.2)),),
    ),
    "letter t": _shape(_box(-0.85, -0.9, 0.85, -0.4), _box(-0.26, -0.5, 0.26, 0.92)),
    "letter h": _shape(_box(-0.8, -0.9, -0.3, 0.9), _box(0.3, -0.9, 0.8, 0.9), _box(-0.4, -0.25, 0.4, 0.25)),
    "letter l": _shape(_box(-0.65, -0.9, -0.13, 0.9), _box(-0.3, 0.4, 0.72, 0.9)),
}

SHAPES: dict[str, tuple[Part, ...]] = {**_GENERAL, **_NEW}
GENERAL_SHAPES: tuple[str, ...] = tuple(_GENERAL)
