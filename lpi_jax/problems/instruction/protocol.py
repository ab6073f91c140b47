"""What was measured, in words."""

from lpi_jax.problems.instruction.options import Measured


def protocol(measured: Measured, routed: str) -> str:
    """The protocol in words, for whoever finds the numbers in five years.

    Args:
      routed: whether a sample's task is `inferred` or `given`, or `newest` (every sample gets the newest adapter) or
        `none` (the frozen backbone).
    """
    answered = {
        "given": "with what belongs to its true task",
        "inferred": "with what the method chooses for its image and question",
        "newest": "by the backbone as it is after the newest task",
        "none": "by the frozen backbone",
    }
    squares = {"pad": "padded to squares", "crop": "cropped to squares", "published": "padded or cropped as published"}
    return (
        f"After each task, every validation sample of all tasks seen so far is answered {answered[routed]}, greedily"
        f" and with at most {measured.max_new} tokens. Accuracy is the mean of the samples' own scores, by the metric"
        " of their data set; beside it stands what the releases' scripts count. Captions score CIDEr-D, whose 10 is"
        f" 100 %. Images are {squares[measured.image]}. Chance is the best single answer to all samples of a"
        " task, among its commonest. R[s][t] is the accuracy on task t after stage s, per cent."
    )
