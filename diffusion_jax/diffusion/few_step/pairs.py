"""Two times of one trajectory, and a step of the probability-flow ODE from one to the other."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.protocols import Across, Denoiser, LawOfUpdate, Time
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.time_sampling import Times


class Pair(NamedTuple):
    """Two times of a trajectory, arrays of one shape, [B] in a loss.

    Attributes:
      t: the noisier one.
      u: the one nearer to the data, u < t.
      share: 1 - v_u / v_t, in (0, 1], of the noise levels v = sigma / alpha: how much of the noise a step from t to u
        takes away. Neighbours are close, so it is derived in float64 where the times stand in a table.
    """

    t: Any
    u: Any
    share: Any


def of_times(schedule: Schedule, t: np.ndarray, u: np.ndarray) -> Pair:
    """The pairs of NumPy times t > u, [N] each, with their shares in float64. All noise goes where alpha(t) = 0."""
    share = 1 - schedule.sigma(u) * schedule.alpha(t) / (schedule.alpha(u) * schedule.sigma(t))
    return Pair(np.asarray(t), np.asarray(u), np.asarray(share))


def by_update(law: LawOfUpdate) -> Times:
    """Times of a law that changes with training: `law(k, u [b]) -> tree of [b]`, of k updates made and u in [0, 1).

    Each example draws for itself. k is the memory, a part of the training state: a resumed run goes on with it, and a
    law that looks k up in a table compiles nothing anew.
    """

    def draw(updates, key, index, total):
        u = jax.vmap(jax.random.uniform)(rng.per_example(key, index))
        return law(updates, u), jnp.ones(index.shape)

    return Times(lambda: jnp.zeros((), jnp.int32), draw, lambda updates, t, losses: updates + 1)


# ---- Solvers: `(denoise, x_t, pair) -> x_u`, one step of the ODE of `denoise`.


def jump(schedule: Schedule, x_t: jax.Array, x0: jax.Array, t: Time, u: Time) -> jax.Array:
    """x_u = (sigma_u / sigma_t) (x_t - alpha_t x0) + alpha_u x0: DDIM from t to u, [B], given x0. Well defined where
    alpha(t) = 0, and where sigma(u) = 0 it is x0."""
    keep = schedule.sigma(u) / schedule.sigma(t)
    return expand(keep, x_t) * x_t + expand(schedule.alpha(u) - keep * schedule.alpha(t), x_t) * x0


def euler(schedule: Schedule) -> Across:
    """Euler's method in sigma / alpha, which is DDIM; one look at the denoiser."""
    return lambda denoise, x_t, pair: _step(schedule, x_t, denoise(x_t, pair.t).mean, pair)


def heun(schedule: Schedule) -> Across:
    """Heun's method: the mean of the slopes at t and at Euler's point at u, where noise must be left; two looks."""

    def solve(denoise: Denoiser, x_t, pair: Pair):
        x0 = denoise(x_t, pair.t).mean
        x_u = _step(schedule, x_t, x0, pair)
        change = schedule.alpha(pair.u) * pair.share / (1 - pair.share) / 2
        return x_u + expand(change, x_t) * (denoise(x_u, pair.u).mean - x0)

    return solve


def _step(schedule: Schedule, x_t, x0, pair: Pair):
    """`jump`, whose coefficient of x0 is alpha_u times the share."""
    keep = schedule.sigma(pair.u) / schedule.sigma(pair.t)
    return expand(keep, x_t) * x_t + expand(schedule.alpha(pair.u) * pair.share, x_t) * x0
