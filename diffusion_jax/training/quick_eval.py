"""A quick look at quality during training: the Fréchet distance of a few images, by the averaged parameters."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Parallel, Tree
from diffusion_jax.evaluation import extractors, frechet, image_store, streaming
from diffusion_jax.training import metrics
from diffusion_jax.training.experiment import Experiment

DISTANCE = "frechet_distance"
SMALLEST = "frechet_distance_min_over_training"  # what papers report; chosen by itself, it is a little too good
KNOWN = 10_000  # training images that are compared with
BATCH = 256


class QuickEval:
    """Draws the same `log.evaluate_num` noises with the preview's sampler, and compares them with training images.

    A look, not a result: few images, few steps. Distances compare along one run only.

    Args:
      experiment: the experiment that is trained.
      config: its `seed` and `log`.
      workdir: where earlier looks are found, for the smallest so far.
      parallel: what draws (`parallel.DataParallel.drawing`).

    Raises:
      InputError: no extractor, or data that are no images.
    """

    def __init__(self, experiment: Experiment, config: ConfigDict, workdir: Path, parallel: Parallel):
        if experiment.sampling.preview is None or experiment.data.view.images is None:
            raise InputError("log.evaluate_every takes a model that draws images; leave it at 0")
        self._extractor = extractors.named(config.log.extractor)
        known = image_store.of_source(experiment.data.source("train"), "training images", KNOWN)
        self._known = streaming.moments(self._extractor, known.parts(), total=known.count)[extractors.FEATURES]
        count = len(parallel.devices)
        self._num = config.log.evaluate_num
        self._size = math.ceil(min(BATCH, self._num) / count) * count
        self._keys = rng.per_example(rng.stream(rng.root(config.seed), "judge"), jnp.arange(self._num))
        self._cond = experiment.data.sample_condition(self._num, {})
        self._sample = parallel.sample(experiment.sampling.preview(self._size // parallel.programs))
        self._images = experiment.data.view.images
        self._file = workdir / metrics.FILE

    def measure(self, params: Tree, step: int) -> dict[str, float]:
        """The distance now, and the smallest so far; later steps, of a run that was resumed, do not count."""
        drawn = []
        for first in range(0, self._num, self._size):
            some = np.arange(first, first + self._size) % self._num
            samples = self._sample(params, self._keys[some], *jax.tree.map(lambda x: x[some], self._cond))  # noqa: B023
            drawn.append(self._images(samples)[: self._num - first])
        found = streaming.moments(self._extractor, drawn, total=self._num)[extractors.FEATURES]
        distance = frechet.distance(self._known, found)
        return {DISTANCE: distance, SMALLEST: min(distance, smallest(self._file, step - 1))}


def smallest(file: Path, last: int) -> float:
    """The smallest distance in a metrics.jsonl up to step `last`; infinite if there is none."""
    return min((distance for step, distance in distances(file) if step <= last), default=math.inf)


def distances(file: Path) -> list[tuple[int, float]]:
    """(step, distance) of every look in a metrics.jsonl."""
    found = ((line["step"], line.get(DISTANCE)) for line in metrics.read(file))
    return [(step, distance) for step, distance in found if isinstance(distance, int | float)]
