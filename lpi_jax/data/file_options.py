"""The keys that all sources of files share."""

from dataclasses import dataclass

from lpi_jax.data.images import MAX_PIXELS
from lpi_jax.options import option


@dataclass(frozen=True)
class FileOptions:
    """What a source of files reads; what `path` is stands with each."""

    path: str = option(
        "", "its file or folder; tfds: its data_dir, '' for the usual one", kind="place", content="stream"
    )
    task_order: tuple[str, ...] = option((), "names of the tasks; (): the stream's own order")
    on_bad_example: str = option("error", "error: ends the run; skip: counts and leaves out", choices=("error", "skip"))
    max_pixels: int = option(MAX_PIXELS, "larger images are bad examples", least=1)
