"""Samples to queries and to answers through the backbone, in batches of few shapes.

A few compiled functions serve evaluation, routing and `lpi_jax.load`. Samples under different prompts share a
batch: every row has prompts of its own. Where several processes run, each loads its own rows of a batch and all get
what the whole becomes; the last batch is filled up with repetitions that nobody sees, to few sizes, so that every
process runs the same steps.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

import jax
import numpy as np
from jax.sharding import Mesh
from PIL import Image

from lpi_jax.data import batches, loader
from lpi_jax.data.instructed import Instructed
from lpi_jax.models.llava.generation import generate
from lpi_jax.models.llava.llava import Inputs, LLaVA
from lpi_jax.parallel import mesh as meshes
from lpi_jax.problems import filling
from lpi_jax.problems.instruction.adapters import Group
from lpi_jax.problems.instruction.conversation import PAD
from lpi_jax.problems.instruction.options import Measured
from lpi_jax.problems.instruction.pictures import Pictures
from lpi_jax.problems.instruction.sides import SIDE
from lpi_jax.problems.instruction.texts import Texts, room
from lpi_jax.types import Tree


class Samples(NamedTuple):
    """What is asked: records, and the image of each by its number (of one without an image it is not asked for)."""

    records: Sequence[Instructed]
    load: Callable[[int], Image.Image]


class Asking(Protocol):
    """What is needed of the problem: its network, what the towers read, and two of its functions."""

    model: LLaVA
    texts: Texts

    def queries(self, frozen: Tree, batch: Tree) -> dict[str, jax.Array]:
        """{SIDE: [B, 2C + 1] float32}."""

    def question_features(self, frozen: Tree, question_ids: jax.Array) -> jax.Array:
        """[B, m] int32 -> [B, C] float32."""


class Programs(NamedTuple):
    """The compiled functions, of the parameters and a batch split over the mesh.

    Attributes:
      queries: (params, batch) -> [B, 2C + 1]. answers: (params, `Inputs` as a tree) -> ids [B, max_new].
      features: (params, question ids, on every device) -> [B, C].
    """

    queries: Callable
    answers: Callable
    features: Callable


def programs(problem: Asking, max_new: int, mesh: Mesh) -> Programs:
    """What a problem's samples go through; max_new: tokens of an answer, at most."""
    whole, rows = meshes.replicated(mesh), meshes.split(mesh)

    def asking(params: Tree, batch: Tree) -> jax.Array:
        return problem.queries(params, batch)[SIDE]

    def answering(params: Tree, batch: Tree) -> jax.Array:
        return generate(problem.model, params, Inputs(**batch), max_new).ids

    shardings = {"in_shardings": (None, rows), "out_shardings": whole}
    return Programs(
        jax.jit(asking, **shardings),
        jax.jit(answering, **shardings),
        jax.jit(problem.question_features, in_shardings=(None, whole), out_shardings=whole),
    )


class Answering:
    """A backbone ready to answer.

    Args:
      problem: with its network. frozen: the backbone's parameters, on the mesh. mesh: devices that batches are split
        over. measured: rows of a batch, a multiple of the mesh's size, and tokens of an answer. pictures: of an image.

    Attributes:
      generated: how many answers have been generated so far.
    """

    def __init__(self, problem: Asking, frozen: Tree, mesh: Mesh, measured: Measured, pictures: Pictures) -> None:
        meshes.check_batch("config.eval.batch", measured.batch, mesh)
        self.frozen, self.generated = frozen, 0
        self.texts, self._pictures = problem.texts, pictures
        self._mesh, self._batch, self._max_new = mesh, measured.batch, measured.max_new
        self._run = programs(problem, measured.max_new, mesh)

    def queries(self, samples: Samples) -> np.ndarray:
        """[N, 2C + 1] float32: what the method is asked with about each sample (`Instruction.queries`)."""
        question_ids = self.texts.questions(samples.records)

        def make(numbers: np.ndarray) -> Tree:
            return {**self._seen(samples, numbers), "question_ids": question_ids[numbers]}

        return self._together(np.arange(len(samples.records)), make, lambda rows: self._run.queries(self.frozen, rows))

    def answers(self, samples: Samples, numbers: np.ndarray, group: Group | None = None) -> np.ndarray:
        """Generated ids [n, max_new] int32, pad ids behind each end, of the samples with these numbers [n].

        Args:
          group: under which adapters, one for each of `numbers`; None: the frozen backbone.
        """
        group = group or Group(np.arange(len(numbers)), self.frozen)
        asked = [self.texts.asked(samples.records[number]) for number in numbers]
        # Questions of like length share a batch, so that short ones are not padded to the longest of all.
        order = np.argsort([len(ids) for ids in asked], kind="stable")
        width = np.zeros(len(asked), int)  # of the batch of each: of all of its rows, whichever are loaded here
        for chunk in self._chunks(order):
            width[chunk] = room(max(len(asked[place]) for place in chunk), self.texts.longest)

        def make(places: np.ndarray) -> Tree:
            length = np.array([len(asked[place]) for place in places], np.int32)
            ids = np.full((len(places), width[places[0]]), PAD, np.int32)
            for row, place in zip(ids, places, strict=True):
                row[: len(asked[place])] = asked[place]
            batch = {**self._seen(samples, numbers[places]), "ids": ids, "length": length}
            if group.prompts is None:
                return batch
            own = group.chosen[places]
            return {**batch, "prompts": group.prompts[own], "present": group.present[own]}

        self.generated += len(numbers)
        found = self._together(order, make, lambda rows: self._run.answers(group.params, rows))
        unsorted = np.full((len(numbers), self._max_new), PAD, np.int32)
        unsorted[order] = found.reshape(len(order), -1)
        return unsorted

    def meaning(self, text: str) -> np.ndarray:
        """[C] float32, L2-normalised: the features of a text as if it were a question."""
        found = np.asarray(self._run.features(self.frozen, self.texts.words([text])))[0]
        return found / max(float(np.linalg.norm(found)), 1e-8)

    def _seen(self, samples: Samples, numbers: np.ndarray) -> Tree:
        there = np.array([samples.records[number].has_image for number in numbers])
        images = [
            self._pictures(samples.load(int(number)), samples.records[number].fit)
            if has_image
            else self._pictures.nothing
            for number, has_image in zip(numbers, there, strict=True)
        ]
        return {"images": np.stack(images), "has_image": there}

    def _chunks(self, items: np.ndarray) -> Iterator[np.ndarray]:
        return (items[start : start + self._batch] for start in range(0, len(items), self._batch))

    def _together(
        self, items: np.ndarray, make: Callable[[np.ndarray], Tree], run: Callable[[Tree], jax.Array]
    ) -> np.ndarray:
        """run(make(items)), batch by batch; items [n] int -> [n, ...]."""

        def own(chunk: np.ndarray) -> Tree:
            share = batches.host_rows(
                filling.size(len(chunk), self._batch, self._mesh.size), jax.process_index(), jax.process_count()
            )
            # Behind the end of the items there is nothing to load: the last one is repeated.
            here = slice(min(share.start, len(chunk) - 1), share.stop)
            rows = make(chunk[here])
            missing = share.stop - share.start - len(chunk[here])
            return jax.tree.map(lambda part: np.pad(part, [(0, missing)] + [(0, 0)] * (part.ndim - 1), "edge"), rows)

        chunks = list(self._chunks(items))
        found = [
            np.asarray(run(meshes.put_rows(rows, self._mesh)))[: len(chunk)]
            for chunk, rows in zip(chunks, loader.ahead(own, chunks), strict=True)
        ]
        return np.concatenate(found) if found else np.zeros((0, 0), np.float32)
