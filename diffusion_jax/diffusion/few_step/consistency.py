"""Consistency models (Song et al. 2023): one function from every point of a trajectory to its start.

Their data is what lies at a smallest noise level epsilon, time 0 here. Training corrupts clean data to a *level*,
epsilon + t (T - epsilon); sampling adds noise to what lies at epsilon, of variance level^2 - epsilon^2. So there are
two schedules of the same times, `levels` and `renoising`, and a process with both, `process`.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import namespace
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Across, Distance, MakeLoss, Points, TargetParams, Teacher, Tree
from diffusion_jax.diffusion import processes, timesteps
from diffusion_jax.diffusion.few_step.pairs import Pair
from diffusion_jax.diffusion.few_step.teachers import one
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.diffusion.parameterizations import denoiser
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.schedules import Schedule

LOW, HIGH = 0.002, 80.0  # the paper's epsilon and T


# ---- Levels, times, grids.


def levels(low: float = LOW, high: float = HIGH) -> Schedule:
    """What data is corrupted by in training: sigma = low + t (high - low), alpha = 1. Unlike other schedules'
    sigma(0) is not 0. A teacher's `parameterizations.edm` on it looks at the same times."""
    return Schedule(_ones, lambda t: low + namespace(t).asarray(t, float) * (high - low))


def renoising(low: float = LOW, high: float = HIGH) -> Schedule:
    """What is added to data at `low` in sampling: sigma^2 = level^2 - low^2, alpha = 1; 0 at t = 0, to the bit."""

    def sigma(t):
        above = namespace(t).asarray(t, float) * (high - low)  # level - low
        return namespace(t).sqrt(above * (above + 2 * low))

    return Schedule(_ones, sigma)


def _ones(t):
    return namespace(t).ones_like(namespace(t).asarray(t, float))


def process(trained: Schedule, walked: Schedule) -> Process:
    """Corrupts as `trained` (`levels`), adds all noise anew as `walked` (`renoising`), and starts from T times noise.

    `samplers.ancestral` of it is the paper's algorithm 1.
    """
    corrupting = processes.gaussian(trained)

    def prior(key, shape, t=1.0):
        return float(trained.sigma(t)) * rng.flat(jax.random.normal, key, shape)

    return processes.gaussian(walked, processes.renoise)._replace(corrupt=corrupting.corrupt, prior=prior)


def karras_levels(num: int, low: float = LOW, high: float = HIGH, rho: float = 7.0) -> np.ndarray:
    """N levels from `high` down to `low` in equal steps of level^(1 / rho), float64 [N] (Karras et al. 2022)."""
    if not (0 < low < high < np.inf and rho > 0):
        raise InputError(f"levels need 0 < low < high and rho > 0, not {low:g}, {high:g} and {rho:g}")
    levels = timesteps.karras_levels(num, low, high, rho)
    levels[-1], levels[0] = low, high  # to the bit: their times are 0 and 1
    return levels


def times_of(level: ArrayLike, low: float = LOW, high: float = HIGH) -> np.ndarray:
    """The times of levels in [low, high], in [0, 1]; `InputError` for others."""
    times = (np.asarray(level, np.float64) - low) / (high - low)
    if not ((times > -1e-12) & (times < 1 + 1e-12)).all():
        raise InputError(f"levels lie in [{low:g}, {high:g}], not at {np.asarray(level)}")
    return np.clip(times, 0.0, 1.0)


def training_grid(points: int, low: float = LOW, high: float = HIGH, rho: float = 7.0) -> np.ndarray:
    """The times of `karras_levels`, [N], from 1 to 0: what neighbours are drawn from."""
    return times_of(karras_levels(points, low, high, rho), low, high)


def grid(chosen: ArrayLike, low: float = LOW, high: float = HIGH) -> np.ndarray:
    """The grid of a chain that looks at the `chosen` levels, falling, [n], and arrives at `low`: [n + 1]."""
    chosen = np.atleast_1d(np.asarray(chosen, np.float64))
    return np.append(times_of(chosen, low, high), 0.0)


def grid_of_indices(
    indices: ArrayLike, points: int, low: float = LOW, high: float = HIGH, rho: float = 7.0
) -> np.ndarray:
    """The grid of a list of indices as the official code has it, (0, 22, 39) of 40 points; index 0 is the level T.

    Raises:
      InputError: the last is not points - 1, where the chain arrives, or they do not rise.
    """
    indices = np.asarray(indices, int)
    if len(indices) < 2 or indices[-1] != points - 1 or indices[0] < 0 or not (np.diff(indices) > 0).all():
        given = ",".join(map(str, indices))
        raise InputError(
            f"the indices of a chain rise to the last of {points}, {points - 1}, where it arrives, not {given}"
        )
    return training_grid(points, low, high, rho)[indices]


# ---- What a pair is made of: `(process, keys [B], x0, context, *cond) -> (x_t, x_u)`, on one trajectory.


def same_noise(
    process: Process, keys: jax.Array, x0: jax.Array, context: Context, *cond: Any
) -> tuple[jax.Array, jax.Array]:
    """Consistency training's: x0 with the same noise at both levels. No teacher."""
    corrupt = jax.vmap(lambda key, x0, t: process.corrupt(key, x0, t)[0])  # the same key draws the same noise
    return corrupt(keys, x0, context.t.t), corrupt(keys, x0, context.t.u)


def solved(teacher: Teacher, solver: Across) -> Points:
    """Consistency distillation's: x_t, and one step of the teacher's ODE from there.

    Args:
      teacher: `(context, *cond) -> Denoiser` (`teachers.held`), guided or not.
      solver: `pairs.euler` or `pairs.heun` of the schedule that data is corrupted by.
    """

    def points(process, keys, x0, context, *cond):
        x_t, _ = jax.vmap(process.corrupt)(keys, x0, context.t.t)
        return x_t, solver(teacher(context, *cond), x_t, context.t)

    return points


# ---- Whose answer at u is the target: `(params, context) -> params`.


def itself(params: Tree, context: Context) -> Tree:
    """The network's own, as a constant: a target average that forgets at once (mu = 0)."""
    return params


def averaged(name: str = "target") -> TargetParams:
    """That of an average of the parameters, `Average(lambda step: 1 - mu(step))`: not the one that samples."""
    return lambda params, context: context.averages[name]


# ---- The loss.


def loss(
    points: Points, distance: Distance, target: TargetParams = itself, weight: Callable[[Pair], Any] = one
) -> MakeLoss:
    """weight d(f(x_t, t), f_target(x_u, u)), as `Method.loss` takes it; `context.t` is a `Pair`.

    (Song et al. 2023, algorithms 2 and 3.) The target is a constant: no gradient goes through it. Both networks have
    the same dropout keys.

    Args:
      points: `same_noise` or `solved(...)`.
      distance: `(x, y, context) -> [B]` (`distances`).
      target: `itself` or `averaged()`.
      weight: of a pair, [B]; `inverse_width`.
    """

    def make(apply, parameterization, process):
        def of_pair(keys, params, x0, context, *cond):
            noise_keys, dropout_keys = rng.split(keys, 2)
            x_t, x_u = points(process, noise_keys, x0, context, *cond)

            def f(params, x, t):
                return denoiser(partial(apply, params, dropout_keys=dropout_keys), parameterization)(x, t, *cond).mean

            wanted = jax.lax.stop_gradient(f(target(params, context), x_u, context.t.u))
            return weight(context.t) * distance(f(params, x_t, context.t.t), wanted, context), {}

        return of_pair

    return make


def inverse_width(schedule: Schedule) -> Callable[[Pair], Any]:
    """The weight 1 / (level_t - level_u) of a pair, for alpha = 1 (improved consistency training; ECT)."""

    def weight(pair: Pair):
        return 1 / (pair.share * schedule.sigma(pair.t))

    return weight
