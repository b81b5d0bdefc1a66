"""Multistep solvers: one look a step, and a table of weights for what earlier steps saw.

Every one of them is x_s = x x_t + sum_j w_j e_j + noise z, where e_0 is what is seen now, e_1 what was seen one step
before, .... They differ in what they remember, the estimate D or the noise eps = (x_t - alpha_t D) / sigma_t, and in
their weights, which are integrals over the step of a polynomial through what is remembered. Weights depend on the
grid alone: they are computed before the chain is walked, in float64.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.protocols import Orders, Time
from diffusion_jax.diffusion.samplers.core import Sampler, within
from diffusion_jax.diffusion.schedules import Schedule


class MultistepPlan(NamedTuple):
    """e = read_x x_t + read_x0 D is seen at t; x_s = x x_t + sum_j weights_j e_j + noise z.

    Arrays [N], `weights` [N, K]; `noise` is None where there is none.
    """

    t: jax.Array
    read_x: jax.Array
    read_x0: jax.Array
    x: jax.Array
    weights: jax.Array
    noise: jax.Array | None = None


class Remembered(NamedTuple):
    """The images [B, ...], and what was seen at the last K - 1 steps, the newest first: [K - 1, B, ...]."""

    x: jax.Array
    seen: jax.Array


def multistep(plan: Callable[[np.ndarray, np.ndarray], MultistepPlan], memories: int) -> Sampler:
    """The sampler of a `plan`, `(t [N], s [N]) -> MultistepPlan`, whose weights are K = `memories` + 1."""

    def init(x):
        return Remembered(x, jnp.zeros((memories, *x.shape), x.dtype))

    def step(keys, state, plan, denoise):
        now = plan.read_x * state.x + plan.read_x0 * denoise(state.x, plan.t).mean
        seen = jnp.concatenate([now[None].astype(state.seen.dtype), state.seen])
        x = plan.x * state.x + jnp.sum(expand(plan.weights, seen) * seen, axis=0)
        if plan.noise is not None:
            x = x + plan.noise * rng.normal_like(keys, state.x)
        return Remembered(x.astype(state.x.dtype), seen[:-1])

    return Sampler(plan, init=init, step=step, done=lambda state: state.x, put=within)


# ---- What is remembered: e = a x_t + b D.


def read_x0(schedule: Schedule, t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The estimate itself."""
    return np.zeros_like(t), np.ones_like(t)


def read_noise(schedule: Schedule, t: Time) -> tuple[Any, Any]:
    """eps, the noise that the estimate leaves in x_t; t > 0."""
    return 1 / schedule.sigma(t), -schedule.alpha(t) / schedule.sigma(t)


# ---- Of which order the steps are.


def at_most(order: int) -> Orders:
    """`N -> orders [N]`: as high as there are memories for, up to `order`."""
    return lambda steps: np.minimum(np.arange(steps) + 1, order)


def before(values: np.ndarray, number: int, absent: float) -> np.ndarray:
    """`values` [N] of `number` steps earlier; `absent` where there were none."""
    return np.concatenate([np.full(min(number, len(values)), absent), values[: max(len(values) - number, 0)]])


def attainable(lengths: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """`orders` [N], but at most one more than there are memories since the last step of infinite length [N]."""
    memories, found = 0, []
    for length, order in zip(lengths, orders, strict=True):
        found.append(min(order, memories + 1))
        memories = memories + 1 if np.isfinite(length) else 0
    return np.array(found)
