"""How many rows the last batch of some items gets: few sizes, so that few programs are compiled."""

SMALLEST = 16  # rows, at least


def size(count: int, batch: int, devices: int) -> int:
    """Rows of the batch for `count` items: SMALLEST in doublings, a multiple of `devices`, `batch` at most.

    Args:
      batch: rows of a whole batch, a multiple of devices.
    """
    rows = SMALLEST
    while rows < count:
        rows *= 2
    return min(batch, -(-rows // devices) * devices)
