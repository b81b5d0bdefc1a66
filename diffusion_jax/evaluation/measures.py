"""All metrics of a set of images against a real one, in one call."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import numpy as np

from diffusion_jax.evaluation import frechet, neighbours, scores
from diffusion_jax.evaluation.extractors import FEATURES, SPATIAL

GAUSSIAN = "gaussian of {}"  # the name of a published (mean, covariance) in place of the real features of that name


class Measure(NamedTuple):
    """A metric.

    Attributes:
      name: of it.
      of: `(real, generated) -> float`, both dictionaries of arrays [N, D] as `streaming.extract` returns them; the
        real ones may have Gaussians (`GAUSSIAN`) beside them or instead.
      better: 1 where more is better, -1 where less is.
      needs: which of the generated arrays.
      against: which of the real ones, any of them; empty where it does not look at real images.
    """

    name: str
    of: Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], float]
    better: int
    needs: str = FEATURES
    against: tuple[str, ...] = (FEATURES,)

    def possible(self, real: Mapping, generated: Mapping) -> bool:
        """Whether what it takes is there."""
        return self.needs in generated and (not self.against or any(name in real for name in self.against))


def _frechet(name, real, generated) -> float:
    known = real.get(GAUSSIAN.format(name)) or frechet.moments(real[name]).gaussian()
    return frechet.gaussian_distance(known, frechet.moments(generated[name]).gaussian())


def _kernel(real, generated) -> float:
    return scores.kernel_distance(real[FEATURES], generated[FEATURES])


def _manifold(field, measure, real, generated) -> float:
    return getattr(measure(real[FEATURES], generated[FEATURES]), field)


MEASURES = (
    Measure("Fréchet distance", partial(_frechet, FEATURES), -1, FEATURES, (FEATURES, GAUSSIAN.format(FEATURES))),
    Measure("spatial Fréchet distance", partial(_frechet, SPATIAL), -1, SPATIAL, (SPATIAL, GAUSSIAN.format(SPATIAL))),
    Measure("kernel distance", _kernel, -1),
    Measure("Inception Score", lambda _, made: scores.inception_score(made["logits"]).mean, 1, "logits", ()),
    Measure("precision", partial(_manifold, "precision", neighbours.precision_recall), 1),
    Measure("recall", partial(_manifold, "recall", neighbours.precision_recall), 1),
    Measure("density", partial(_manifold, "density", neighbours.density_coverage), 1),
    Measure("coverage", partial(_manifold, "coverage", neighbours.density_coverage), 1),
)
