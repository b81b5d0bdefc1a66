"""What the tables share: a run, sets of images that are drawn from it and judged, other ways down, and results."""

import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.app import resolve, sampling
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.diffusion import processes, samplers
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.evaluation import extractors, frechet, image_store, protocol, streaming
from diffusion_jax.evaluation.extractors import FEATURES
from diffusion_jax.methods.compose import Chain, MakeChain, Method, compose
from diffusion_jax.training import workdir
from diffusion_jax.training.experiment import Experiment, MakeSampler, SampleRequest

METRIC = "Fréchet distance"  # as in diffusion_jax.evaluate

# Samplers that take nothing but a schedule, for runs that do not have them themselves.
BY_SCHEDULE = {
    "euler": samplers.euler,
    "heun": samplers.heun,
    "dpmpp_2m": samplers.dpmpp_2m,
    "dpmpp_2m_sde": samplers.dpmpp_2m_sde,
    "ancestral": lambda schedule: samplers.ancestral(processes.gaussian(schedule)),
}


# ---- A run.


class Weights(NamedTuple):
    """Parameters of a network, what they are for a person, and their digest."""

    params: Any
    about: str
    sha256: str


class Run(NamedTuple):
    """A trained run: its folder, config and experiment."""

    folder: Path
    config: ConfigDict
    experiment: Experiment

    def averaged(self) -> Weights:
        """The averaged parameters of its newest checkpoint."""
        step, params = resolve.parameters(self.folder, self.experiment)
        return weights(params, f"averaged parameters of step {step}")


def opened_run(options) -> Run:
    """The run in `options.workdir`.

    Raises:
      InputError: there is none.
    """
    module, config = workdir.open_existing(options.workdir, options.config)
    return Run(options.workdir, config, module.build(config))


def weights(params, about: str) -> Weights:
    """`params` with their digest."""
    return Weights(params, about, protocol.digest(params))


# ---- Sets of images, and their quality.


class Cell(NamedTuple):
    """A set of images: its place in the table, how it is drawn, and by which weights."""

    row: str
    column: str
    make: MakeSampler
    request: SampleRequest
    weights: Weights


def sample_keys(options) -> jax.Array:
    """One key an example, as `diffusion_jax.sample` has them for `options.seed`: [options.num]."""
    return rng.per_example(rng.stream(jax.random.key(options.seed), "sample"), jnp.arange(options.num))


class Quality:
    """Draws sets of images, keeps them, and gives their Fréchet distance to the training images.

    Images are kept in `WORKDIR/tables/images`, a folder a set, so that a killed table goes on where it was. They are
    those that `diffusion_jax.sample` and `evaluate` draw with the same seed.

    Args:
      options: of `add_images`.
      experiment: what draws, and whose training images are compared with.

    Raises:
      InputError: this experiment has no images, or the extractor does not take them.
    """

    def __init__(self, options, experiment: Experiment):
        if experiment.data.view.images is None:
            raise InputError(f"the run in {options.workdir} does not draw images; these tables are of images")
        if options.num < 2 or options.batch < 1:
            raise InputError(f"--num {options.num} must be at least 2 and --batch {options.batch} at least 1")
        self._options, self._images = options, experiment.data.view.images
        self._cond = experiment.data.sample_condition(options.num, {})
        self._keys = sample_keys(options)
        self._extractor = extractors.named(options.extractor)
        self._reference = image_store.of_source(experiment.data.source("train"), "train images")
        self._real = self._moments(self._reference)

    def table(self, title: str, cells: Sequence[Cell]) -> dict[str, dict[str, float]]:
        """The distances of all sets, row -> column -> distance. `title` is a part of what a set is known by."""
        for cell in cells:
            cell.make(cell.request)  # what cannot be met is refused before anything is drawn
        found = {}
        for number, cell in enumerate(cells, start=1):
            distance = self._distance(title, cell)
            line(f"[{number}/{len(cells)}] {cell.row}, {cell.column}: {distance:.2f}")
            found.setdefault(cell.row, {})[cell.column] = distance
        return found

    def protocol(self) -> dict[str, Any]:
        """How distances were measured: numbers of different protocols do not compare."""
        reference, extractor = self._reference, self._extractor
        return {
            "generated": self._options.num,
            "reference": {"name": reference.name, "images": reference.count, "sha256": reference.sha256()},
            "extractor": {"name": extractor.name, "sha256": extractor.sha256},
            "metrics": [METRIC],
            "pixels": "uint8, as saved",
        }

    def _distance(self, title: str, cell: Cell) -> float:
        options, request = self._options, cell.request
        of = [title, cell.row, cell.column, request.steps, request.eta, cell.weights.sha256]
        key = hashlib.sha256(json.dumps([*of, options.num, options.batch, options.seed]).encode()).hexdigest()[:12]
        parts = image_store.Parts(options.workdir / "tables" / "images" / key, options.num, options.batch)
        missing = parts.missing()
        there = options.num - sum(min(options.batch, options.num - start) for start in missing)
        if there:
            line(f"{cell.row}, {cell.column}: {there} images are there already, in {parts.folder}")
        if missing:
            drawn = sampling.batches(
                cell.make, cell.weights.params, self._keys, self._cond, request, options.batch, missing
            )
            for start, some in drawn:
                parts.add(start, self._images(some))
        return frechet.distance(self._real, self._moments(parts.images(f"{cell.row}, {cell.column}")))

    def _moments(self, images: image_store.Images) -> frechet.Moments:
        return streaming.moments(self._extractor, images.parts(), total=images.count)[FEATURES]


# ---- Other chains with a run's network.


def changed(chain: MakeChain, change: Callable[[Chain], Chain]) -> MakeChain:
    """`chain` with the same options, and what `change` makes of it."""

    @functools.wraps(chain)  # a chain takes the options of its signature
    def made(**options) -> Chain:
        return change(chain(**options))

    return made


def sampler_of(run: Run, chain: MakeChain) -> MakeSampler:
    """A sampler of the run's network by another chain."""
    method = method_of(run)
    (make,) = compose(run.config, method._replace(chains={"other": chain})).sampling.samplers.values()
    return make


def method_of(run: Run) -> Method:
    """The parts of a run.

    Raises:
      InputError: it was put together otherwise.
    """
    if run.experiment.method is None:
        raise InputError(f"the config of {run.folder} composes no method, whose chains this table changes")
    return run.experiment.method


def schedule_of(run: Run) -> Schedule:
    """The schedule of a run's method.

    Raises:
      InputError: it has none.
    """
    schedule = method_of(run).schedule
    if schedule is None:
        raise InputError(
            f"the method of {run.folder} has no schedule of Gaussian noise; "
            f"choose samplers that the run has: {', '.join(run.experiment.sampling.samplers)}"
        )
    return schedule


# ---- Options and results.


def add_images(parser) -> None:
    """The options of tables of images' quality."""
    add = parser.add_argument
    add("--num", type=int, default=1000, metavar="N", help="images a set (%(default)s)")
    add("--extractor", default="digits", metavar="WHICH", help="as of diffusion_jax.evaluate (%(default)s)")
    add_run(parser)


def add_run(parser) -> None:
    """The options that all tables have."""
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="a trained run; tables are kept in DIR/tables")
    add("--config", type=Path, metavar="FILE", help="the run's config file, if it has moved")
    add("--batch", type=int, default=256, metavar="B", help="examples at a time, over all devices (%(default)s)")
    add("--seed", type=int, default=0, help="of the noise (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="also write the numbers there, with their protocol")


def integers(text: str) -> list[int]:
    """The numbers in "5,10,20", for argparse."""
    return [int(part) for part in text.split(",")]


def decimals(text: str) -> list[float]:
    """The numbers in "0,0.2,0.5", for argparse."""
    return [float(part) for part in text.split(",")]


def words(text: str) -> list[str]:
    """The words in "heun,euler", for argparse."""
    return text.split(",")


def markdown(corner: str, rows: Mapping[str, Mapping[str, float]], digits: int = 2, columns=None) -> str:
    """A table in Markdown, with `columns` (by default in the order of the rows); missing entries are empty."""
    columns = columns or list(dict.fromkeys(column for row in rows.values() for column in row))
    lines = [[corner, *columns], ["---"] * (len(columns) + 1)]
    for name, row in rows.items():
        lines.append([name, *(f"{row[column]:.{digits}f}" if column in row else "" for column in columns)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def write(options, subject: Mapping[str, Any], how: Mapping[str, Any], metrics: Mapping[str, float], **more) -> None:
    """Write a report as `diffusion_jax.evaluate --compare` takes it, if `options.json` says where.

    Args:
      options: of `add_run`.
      subject: what was measured; the work directory and the seed are added.
      how: the protocol, as `Quality.protocol` gives it.
      metrics: name -> number.
      more: further parts of the report.
    """
    if options.json is None:
        return
    about = {"model": str(options.workdir), "seed": options.seed, **subject}
    report = {"protocol": how, "subject": about, "metrics": metrics, **more, "environment": protocol.environment()}
    protocol.write(options.json, report)
    line(str(options.json))


def flat(table: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """row -> column -> number as "row, column" -> number."""
    return {f"{row}, {column}": value for row, found in table.items() for column, value in found.items()}
