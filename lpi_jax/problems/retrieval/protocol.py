"""What was measured, in words."""

from lpi_jax.problems.retrieval.options import Measured

RULES = {
    "kmeans_l1": "the task with the nearest k-means centre (L1)",
    "lda": "its most likely task (linear discriminant analysis, one covariance for all tasks)",
    "knn": "the task of most of the nearest training items",
}
PARTS = {
    "prompted": "the cosine under the prompts",
    "plain": "the cosine of plain features",
    "matched": "the cosine under the prompts where both have those of one task, else of plain features",
    "prior": "log sum_t p(t | image) p(t | text) / logit scale",
}


def protocol(measured: Measured, transform: str, routed: str) -> str:
    """The protocol in words, for whoever finds the numbers in five years.

    Args:
      transform: of validation images. routed: whether an item's task is `inferred` or `given`, or `newest` (every item
        gets the newest adapter) or `none` (the frozen backbone).
    """
    asks = "with the placeholders in front" if measured.asks_with_placeholders else "as they are"
    encoded = {
        "given": "under the prompts of its true task.",
        "inferred": f"under the prompts of {RULES[measured.rule]}, images and captions apart; captions ask {asks}.",
        "newest": "by the backbone as it is after the newest task.",
        "none": "by the frozen backbone.",
    }
    union = measured.galleries == "union"
    together = "all tasks seen so far is searched together." if union else "its own task is searched."
    cropped = (
        "resized and centre-cropped." if transform == "centre" else "randomly cropped and flipped, as in training."
    )
    equal = "" if measured.apart else " Captions of the same tokens are one item, of which any image is right."
    parts = [PARTS[part] for part in measured.score.split("+")]
    scored = "" if measured.score == "prompted" else f" An image and a text score {' + '.join(parts)}."
    return (
        f"After each task, every image and caption of {together}"
        " Image to text counts a hit if any of the image's captions is among the first k; text to image uses the"
        f" caption's one image. Equal scores count against the method.{equal}"
        f" Each item is encoded {encoded[routed]}{scored}"
        f" Validation images are {cropped}"
        " R[s][t] is the recall on task t after stage s, per cent."
    )
