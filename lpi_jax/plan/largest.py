"""The largest batch whose program fits into a chip's memory, from a few compilations."""

from collections.abc import Callable

MOST = 6  # compilations


def largest(peak: Callable[[int], int], start: int, step: int, memory: float) -> tuple[int, int]:
    """The largest batch that was found to fit, and its bytes; (0, bytes of the smallest) where none does.

    Memory grows about linearly with the batch, so that two batches tell where to look; what is returned was compiled.

    Args:
      peak: batch -> bytes that a chip needs. start: a batch to begin with. step: every batch is a multiple of it.
      memory: bytes of a chip.
    """
    known = {start: peak(start)}
    first = max(step, start // 2 // step * step) if known[start] >= memory else start * 2
    if first != start:
        known[first] = peak(first)
    while len(known) < MOST:
        guess = _guess(known, step, memory)
        if guess in known or guess < step:
            break
        known[guess] = peak(guess)
    fitting = [batch for batch, size in known.items() if size < memory]
    return (max(fitting), known[max(fitting)]) if fitting else (0, known[min(known)])


def _guess(known: dict[int, int], step: int, memory: float) -> int:
    """The batch that would just fit, on the line through the two nearest that are known; 0 without a line."""
    fitting = sorted(batch for batch in known if known[batch] < memory)
    too_large = sorted(batch for batch in known if known[batch] >= memory)
    through = [*fitting[-1:], *too_large[:1]] if fitting and too_large else fitting[-2:] or too_large[:2]
    if len(through) < 2 or known[through[0]] >= known[through[1]]:
        return 0
    one, other = through
    slope = (known[other] - known[one]) / (other - one)
    found = int((one + (memory - known[one]) / slope) // step * step)
    if not fitting and found < step:  # what grows faster than the batch, as the products of all its pairs do
        found = too_large[0] // 4 // step * step
    return min(found, too_large[0] - step) if too_large else found
