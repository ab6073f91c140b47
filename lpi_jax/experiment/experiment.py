"""A run's parts, made once from its configuration."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from lpi_jax.data import held_out
from lpi_jax.data.sources import registry as sources
from lpi_jax.data.stream import Stream
from lpi_jax.errors import UserError
from lpi_jax.methods import routing, similarity
from lpi_jax.methods.base import Method, Site
from lpi_jax.methods.registry import METHODS
from lpi_jax.options import chosen
from lpi_jax.parallel import mesh as meshes
from lpi_jax.problems import registry as problems
from lpi_jax.problems.base import Backbone, Evaluator, Problem
from lpi_jax.train import optimizer, step


@dataclass(frozen=True)
class Experiment:
    """What a run is made of.

    Attributes:
      config: with a value for every size that follows from the backbone.
      problem: what is asked. method: what adapts the backbone to it.
      backbone: the frozen weights. mesh: the devices they are on.
      stream: the tasks; None where a finished run is only served. probes: streams that are only measured, by name.
    """

    config: ConfigDict
    problem: Problem
    method: Method
    backbone: Backbone
    mesh: Mesh
    stream: Stream | None = None
    probes: Mapping[str, Stream] = field(default_factory=dict)

    @property
    def training(self) -> optimizer.Options:
        """How tasks are trained."""
        return chosen(optimizer.Options, self.config.train)

    @property
    def routed(self) -> str:
        """How an item gets its adapter: its task is `inferred` or `given`, it gets the `newest` one, or `none`."""
        options = self.method.options
        if not options.trains:
            return "none"
        if not options.routes:
            return "newest"
        return "given" if self.config.task_id == "oracle" else "inferred"

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 of what a run reads beside its configuration, but for the run it reuses."""
        tables = {
            field.metadata["option"].content: getattr(self.method.options, field.name)
            for field in fields(self.method.options)  # type: ignore[arg-type]
            if field.metadata["option"].content
        }
        hashes = {name: similarity.fingerprint(path) for name, path in tables.items() if path != "text"}
        stream = {"stream": self.stream.fingerprint} if self.stream else {}
        probes = {f"probe {name}": probe.fingerprint for name, probe in self.probes.items()}
        return {**stream, **probes, **self.backbone.hashes, **hashes}

    @cached_property
    def gradient(self) -> Callable[..., Any]:
        """Of the problem's own losses (`step.make_gradient`): one compiled function for all tasks."""
        return step.make_gradient(self.problem, self.method, self.mesh, self.training.microbatch)

    def evaluator(self) -> Evaluator:
        """An evaluator without items, which knows what will come and what is only measured."""
        evaluator = self.problem.evaluator(self.method, self.backbone.params, self.mesh)
        for name, probe in self.probes.items():
            evaluator.probe(name, [task.val for task in probe.tasks])
        return evaluator


def assemble(config: ConfigDict, streamed: bool = True) -> Experiment:
    """Loads the backbone and builds everything around it.

    Args:
      streamed: whether the stream of tasks is read, too.

    Raises:
      UserError: what does not fit together, or cannot be read.
    """
    config = config.copy_and_resolve_references()
    mesh = meshes.make_mesh(config.devices, config.fsdp)
    check_train_batches(config, mesh)
    problem, backbone = problems.module(config.problem.name).build(config, mesh)
    method = method_of(config, problem.sites)
    method.fits(backbone.params)
    resolved_config = resolved(config, method)
    if not streamed:
        return Experiment(resolved_config, problem, method, backbone, mesh)
    stream = held_out.apart(stream_of(config, backbone.image_size), config.train.held_out, config.seed)
    probes = sources.probes(config.data.to_dict(), config.eval.probes, backbone.image_size)
    return Experiment(resolved_config, problem, method, backbone, mesh, stream, probes)


def method_of(config: ConfigDict, sites: Mapping[str, Site]) -> Method:
    """The method `config.method`, sized for a backbone. Raises UserError for what does not fit into it."""
    entry = METHODS[config.method.name]
    if missing := [site for site in entry.Options.needs if site not in sites]:
        fitting = [name for name, other in METHODS.items() if all(site in sites for site in other.Options.needs)]
        raise UserError(
            f"config.method.name is {config.method.name!r}, which prompts {' and '.join(missing)}, but"
            f" config.problem.name={config.problem.name} takes prompts at {', '.join(sites)} alone; expected one of"
            f" {', '.join(fitting)}"
        )
    options, router = chosen(entry.Options, config.method), chosen(routing.Options, config.routing)
    return entry.build(options, sites, router)


def resolved(config: ConfigDict, method: Method) -> ConfigDict:
    """A copy in which every option of the method that is 0 because it follows from the backbone has its value."""
    config = config.copy_and_resolve_references()
    for known in fields(method.options):  # type: ignore[arg-type]
        config.method[known.name] = getattr(method.options, known.name)
    return config


def check_train_batches(config: ConfigDict, mesh: Mesh) -> None:
    """Raises UserError unless training batches, where there will be any, split evenly over the devices."""
    if METHODS[config.method.name].Options.trains and not config.reuse:
        meshes.check_batch("config.train.batch", config.train.batch, mesh)
        for size in config.train.batches:
            meshes.check_batch("config.train.batches", size, mesh)
        if part := config.train.microbatch:
            meshes.check_batch("config.train.microbatch", part, mesh)
            for size in config.train.batches or (config.train.batch,):
                if size > part and size % part:
                    raise UserError(f"config.train.microbatch is {part}, expected a divisor of a batch of {size}")


def stream_of(config: ConfigDict, image_size: int) -> Stream:
    """The stream of `config.data`; images that are drawn are drawn at the backbone's `image_size`.

    Raises:
      UserError: also where streams or probes do not say of their images what the problem asks for.
    """
    data, problem = config.data.to_dict(), config.problem.name
    sources.refuse_others(data, problems.module(problem).SAID, problem, config.eval.probes)
    return sources.stream(data, image_size)
