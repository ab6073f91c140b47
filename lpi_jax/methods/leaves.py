"""The leaves of a backbone that a regular expression chooses by their paths ("text_model/.../q_proj/kernel").

Trees are nested dictionaries of arrays, as Flax's are; chosen leaves keep their place in them, so that what is made of
them can be saved, and be grouped by path (`config.train.groups`), as the backbone itself.
"""

import re
from typing import Any

from lpi_jax.errors import UserError
from lpi_jax.types import Tree

# The meaning of the option `where`, which methods share.
WHERE = (
    "regular expression, found in the paths of the backbone's parameters that change; '': of methods with low ranks the"
    " query and value projections, in a language model its MLPs' matrices, too; of others all but logit_scale"
)


def check_pattern(where: str) -> None:
    """Raises UserError unless `config.method.where` is a regular expression."""
    try:
        re.compile(where)
    except re.error as error:
        raise UserError(f"config.method.where is {where!r}, expected a regular expression ({error})") from error


def flat(tree: Tree) -> dict[str, Any]:
    """Every leaf by its path."""
    from flax import traverse_util  # not before it is needed: options of methods are read without any model

    return traverse_util.flatten_dict(tree, sep="/")


def nested(leaves: dict[str, Any]) -> Tree:
    """The tree whose leaves have these paths."""
    from flax import traverse_util

    return traverse_util.unflatten_dict(leaves, sep="/")


def chosen(tree: Tree, where: str) -> dict[str, Any]:
    """The leaves in whose path `where` is found, by path, in the order of their paths.

    Raises:
      UserError: there are none.
    """
    leaves = flat(tree)
    found = {path: leaves[path] for path in sorted(leaves) if re.search(where, path)}
    if not found:
        raise UserError(
            f"config.method.where is {where!r}, which is found in no path of the backbone's parameters; expected one"
            f" that is, such as in {max(leaves)!r}"
        )
    return found


def replaced(tree: Tree, by: Tree) -> Tree:
    """The tree with the leaves of `by` in their places; all others are the same objects as before."""
    return nested({**flat(tree), **flat(by)})
