"""How long a run will still take: what steps and evaluations took so far, without what XLA took to compile them."""

from collections import deque

import jax

_COMPILING = "/jax/core/compile/"  # JAX's events of tracing, lowering and compiling begin so
_RECENT = 50  # intervals between two lines of the log; their mean follows a machine that becomes slower


class Pace:
    """Estimates the time left of a run.

    Args:
      steps: of the whole run. evaluations: still to come, one after each task.
      evaluation: seconds the last evaluation of an earlier start took; None before the first.
    """

    def __init__(self, steps: int, evaluations: int, evaluation: float | None = None) -> None:
        self._steps, self._evaluations, self._evaluation = steps, evaluations, evaluation
        self._recent: deque[tuple[int, float]] = deque(maxlen=_RECENT)
        self._compiling: list[tuple[float, float]] = []
        jax.monitoring.register_event_time_span_listener(self._heard)

    def trained(self, steps: int, seconds: float) -> None:
        """So many steps took so many seconds, compiling included."""
        self._recent.append((steps, self._without_compiling(seconds)))

    def evaluated(self, seconds: float) -> None:
        """A task was evaluated within so many seconds, compiling included."""
        self._evaluation, self._evaluations = self._without_compiling(seconds), self._evaluations - 1

    def skip(self) -> None:
        """What was compiled until now belongs to neither."""
        self._compiling.clear()

    def left(self, done: int) -> tuple[float, bool] | None:
        """Seconds left after `done` steps, and whether evaluations are counted in; None where nothing is known."""
        steps = sum(steps for steps, _ in self._recent)
        if self._steps > done and not steps:
            return None
        each = sum(seconds for _, seconds in self._recent) / steps if steps else 0.0
        if self._evaluation is None and done >= self._steps:
            return None
        return (self._steps - done) * each + self._evaluations * (self._evaluation or 0.0), self._evaluation is not None

    def close(self) -> None:
        """Listens no longer."""
        jax.monitoring.unregister_event_time_span_listener(self._heard)

    def _heard(self, event: str, start: float, end: float, **_: object) -> None:
        if event.startswith(_COMPILING):  # tracing may hold other tracing and compiling, which ended before
            self._compiling = [span for span in self._compiling if span[0] < start] + [(start, end)]

    def _without_compiling(self, seconds: float) -> float:
        compiling = sum(end - start for start, end in self._compiling)
        self._compiling.clear()
        return max(seconds - compiling, 0.0)
