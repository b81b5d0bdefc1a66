"""All metrics of a set of images against a real one, in one call."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from diffusion_jax.evaluation import frechet, neighbours, scores
from diffusion_jax.evaluation.extractors import FEATURES


class Measure(NamedTuple):
    """A metric.

    Attributes:
      name: of it.
      of: `(real, generated) -> float`, both dictionaries of arrays [N, D] as `streaming.extract` returns them.
      better: 1 where more is better, -1 where less is.
      needs: which of the arrays.
    """

    name: str
    of: Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], float]
    better: int
    needs: str = FEATURES


def _frechet(name, real, generated) -> float:
    return frechet.distance(frechet.moments(real[name]), frechet.moments(generated[name]))


def _kernel(real, generated) -> float:
    return scores.kernel_distance(real[FEATURES], generated[FEATURES])


def _manifold(field, measure, real, generated) -> float:
    return getattr(measure(real[FEATURES], generated[FEATURES]), field)


MEASURES = (
    Measure("Fréchet distance", partial(_frechet, FEATURES), -1),
    Measure("spatial Fréchet distance", partial(_frechet, "spatial"), -1, "spatial"),
    Measure("kernel distance", _kernel, -1),
    Measure("Inception Score", lambda real, generated: scores.inception_score(generated["logits"]).mean, 1, "logits"),
    Measure("precision", partial(_manifold, "precision", neighbours.precision_recall), 1),
    Measure("recall", partial(_manifold, "recall", neighbours.precision_recall), 1),
    Measure("density", partial(_manifold, "density", neighbours.density_coverage), 1),
    Measure("coverage", partial(_manifold, "coverage", neighbours.density_coverage), 1),
)
