"""What changes while a consistency model trains: how many points its grid has, and how slow its target is.

Everything is a table in float64, looked up by the number of updates: one compiled step serves all stages.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.few_step import pairs
from diffusion_jax.diffusion.few_step.pairs import Pair
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.time_sampling import Times


class Stages(NamedTuple):
    """Numbers of points along training.

    Attributes:
      starts: updates made before each stage, rising from 0, int64 [S].
      points: of the grid in each, N, int64 [S]; there are N - 1 pairs of neighbours.
    """

    starts: np.ndarray
    points: np.ndarray

    def at(self, updates: Any):
        """The stage after a number of updates, int32, traced or not."""
        return jnp.searchsorted(jnp.asarray(self.starts, jnp.int32), updates, side="right") - 1


def constant(points: int) -> Stages:
    """One stage, as consistency distillation has: 18 points for CIFAR-10, 40 for ImageNet 64x64."""
    return _checked([0], [points])


def growing(first: int = 2, last: int = 150, updates: int = 800_000) -> Stages:
    """Consistency training's N(k) = ceil(sqrt(k / K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1.

    From s0 = `first` points to s1 + 1 = `last` + 1 after K = `updates`, and so on (Song et al. 2023, appendix C).

    Raises:
      InputError: unless 2 <= s0 <= s1 and K >= 1.
    """
    if not (2 <= first <= last and updates >= 1):
        raise InputError(f"a grid grows from 2 or more points to as many, not {first} to {last} in {updates} updates")
    k = np.arange(updates + 1, dtype=np.int64)
    # Over one denominator, so that a perfect square is one.
    points = np.ceil(np.sqrt((k * ((last + 1) ** 2 - first**2) + first**2 * updates) / updates)).astype(np.int64)
    starts = np.flatnonzero(np.diff(points, prepend=0))
    return _checked(starts, points[starts])


def doubling(first: int = 10, last: int = 1280, updates: int = 400_000) -> Stages:
    """Improved consistency training's N(k) = min(s0 2^floor(k / K'), s1) + 1 (Song & Dhariwal 2023, section 3.4).

    K' = floor(K / (log2 floor(s1 / s0) + 1)): 11, 21, ..., 1281 points, 50 000 updates each.

    Raises:
      InputError: unless 1 <= s0 <= s1, or for fewer updates than stages.
    """
    if not 1 <= first <= last:
        raise InputError(f"a grid that doubles grows from 1 or more to at least as many, not from {first} to {last}")
    each = math.floor(updates / (math.log2(last // first) + 1))
    if not each:
        raise InputError(f"{updates} updates are too few to double from {first} to {last}: take more updates")
    powers = np.arange(math.ceil(math.log2(last / first)) + 1)
    return _checked(powers * each, np.minimum(first * 2**powers, last) + 1)


def _checked(starts, points) -> Stages:
    starts, points = np.asarray(starts, np.int64), np.asarray(points, np.int64)
    if points.min() < 2:
        raise InputError(f"a grid of neighbours has at least 2 points, not {points.min()}")
    return Stages(starts, points)


def mu(stages: Stages, first: int = 2, start: float = 0.9) -> Callable[[Any], jax.Array]:
    """The decay of consistency training's target after an update, exp(s0 ln(mu0) / N): `step -> mu`, float32.

    For `Average(lambda step: 1 - mu(step))`. (Song et al. 2023, appendix C; the official codes have N - 1 for N.)

    Args:
      stages: N, of `growing`.
      first: s0.
      start: mu0, in (0, 1).
    """
    if not 0 < start < 1:
        raise InputError(f"a target's first decay lies in (0, 1), not at {start}")
    table = np.exp(first * math.log(start) / stages.points)
    return lambda step: jnp.asarray(table, jnp.float32)[stages.at(step)]


# ---- How neighbours are drawn: a law is `(level_t [N - 1], level_u [N - 1]) -> how often, [N - 1]`, NumPy.


Often: TypeAlias = Callable[[np.ndarray, np.ndarray], np.ndarray]


def uniform(t: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Every pair of neighbours alike."""
    return np.ones(len(t))


def log_normal(mean: float = -1.1, std: float = 2.0) -> Often:
    """In proportion to the chance that log(level) ~ N(mean, std^2) lies between the two (Song & Dhariwal 2023)."""

    def law(t, u):
        below = [np.vectorize(math.erf)((np.log(level) - mean) / (math.sqrt(2) * std)) for level in (t, u)]
        return below[0] - below[1]

    return law


def neighbours(schedule: Schedule, grid: Callable[[int], np.ndarray], stages: Stages, law: Often = uniform) -> Times:
    """Pairs of neighbours on the grid of the stage that training has reached.

    Args:
      schedule: that data is corrupted by (`consistency.levels`).
      grid: `points -> falling times`, float64 [points] (`consistency.training_grid`).
      stages: how many points there are.
      law: how often each pair is drawn.
    """
    table, cumulative = tables(schedule, [grid(int(points)) for points in stages.points], law)

    def draw(updates, u):
        stage = stages.at(updates)
        # The chance is at most 1 - 2^-23, and the last entry of every stage 1.
        place = jnp.searchsorted(jnp.asarray(cumulative)[stage], u, side="right")
        return jax.tree.map(lambda each: jnp.asarray(each)[stage, place], table)

    return pairs.by_update(draw)


def tables(schedule: Schedule, grids: Sequence[np.ndarray], law: Often) -> tuple[Pair, np.ndarray]:
    """(pairs [S, M], chances of a place up to each [S, M]), float32, of S grids of at most M + 1 points."""
    most = max(map(len, grids)) - 1
    pairs_of = [pairs.of_times(schedule, grid[:-1], grid[1:]) for grid in grids]
    chances = [law(*(schedule.sigma(t) / schedule.alpha(t) for t in (pair.t, pair.u))) for pair in pairs_of]
    sums = [np.cumsum(chance) / np.sum(chance) for chance in chances]
    for each in sums:
        each[-1] = 1.0

    def padded(rows):
        return np.stack([np.pad(row, (0, most - len(row)), mode="edge") for row in rows]).astype(np.float32)

    return Pair(*map(padded, zip(*pairs_of, strict=True))), padded(sums)
