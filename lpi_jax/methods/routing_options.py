"""Section `routing`: by what rule an item's task is told."""

from dataclasses import dataclass

from lpi_jax.options import ROUTING, ROUTING_PROMPTS, both, option, with_

WITH_NONE = both(ROUTING, with_("routing.rule", "lda", "knn"))


@dataclass(frozen=True)
class Options:
    """Section `routing`."""

    rule: str = option(
        "kmeans_l1",
        "nearest centre in L1 (the release's), linear discriminant analysis, or the nearest training items (a ceiling:"
        " keeps the features of all)",
        choices=("kmeans_l1", "lda", "knn"),
        reader=ROUTING,
    )
    features: str = option(
        "joint",
        "what an item's task is told by: its features where images and texts meet, or what its tower's last block makes"
        " of it, which also knows what no text speaks of",
        choices=("joint", "tower"),
        reader=ROUTING,
    )
    centres: int = option(
        5, "centres a task and modality", least=1, reader=both(ROUTING, with_("routing.rule", "kmeans_l1"))
    )
    shrinkage: float = option(
        0.001,
        "share of the identity in the common covariance",
        least=0,
        most=1,
        reader=both(ROUTING, with_("routing.rule", "lda")),
    )
    neighbours: int = option(
        10, "training items that vote on an item's task", least=1, reader=both(ROUTING, with_("routing.rule", "knn"))
    )
    none: float = option(
        0.99,
        "share of the training items whose distance marks the border behind which an item belongs to no task; 1: all"
        " belong to one",
        least=0,
        most=1,
        reader=WITH_NONE,
    )
    caption: str = option(
        "plain",
        "captions are routed as they are, or with placeholders in front",
        choices=("plain", "placeholders"),
        reader=ROUTING_PROMPTS,
    )
