"""A jitted function compiled ahead of its calls, so that what a program computes is known."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax


class Program(NamedTuple):
    """One compiled program.

    Attributes:
      run: the call. flops: floating point operations of one call, over all devices, as XLA counts them in the text
        before it optimises; 0 where it does not say.
    """

    run: Callable[..., Any]
    flops: int


class Ahead:
    """A jitted function that is compiled once for the shapes of its arguments, whatever they hold.

    Args:
      counted: another, lowered alone, whose operations are counted in its place: the same work without a loop, of
        which XLA counts one turn.

    Attributes:
      programs: by shapes, those compiled so far. flops: floating point operations of all calls so far.
    """

    def __init__(self, jitted: Callable[..., Any], counted: Callable[..., Any] | None = None) -> None:
        self._jitted, self._counted, self.programs, self.flops = jitted, counted or jitted, dict[Any, Program](), 0

    def __call__(self, *arguments: Any) -> Any:
        """What the function gives."""
        leaves, tree = jax.tree.flatten(arguments)
        shapes = (tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        if shapes not in self.programs:
            self.programs[shapes] = self._compiled(arguments)
        program = self.programs[shapes]
        self.flops += program.flops
        return program.run(*arguments)

    def lower(self, *arguments: Any) -> jax.stages.Lowered:
        """As that of a jitted function; arguments may be shapes alone."""
        return self._jitted.lower(*arguments)

    def _compiled(self, arguments: Any) -> Program:
        lowered = self.lower(*arguments)
        counted = lowered if self._counted is self._jitted else self._counted.lower(*arguments)
        try:
            flops = int((counted.cost_analysis() or {}).get("flops", 0))
        except NotImplementedError:  # some platforms cannot tell
            flops = 0
        return Program(lowered.compile(), flops)
