"""Where a chain breaks: the step after which its data is not finite."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.arrays import at_least_single
from diffusion_jax.core.protocols import Denoiser, Tree
from diffusion_jax.diffusion.samplers.core import Sampler, body_of, steps_of
from diffusion_jax.diffusion.timesteps import check_grid


class Break(NamedTuple):
    """Where the chains of examples stop being finite; arrays [B].

    Attributes:
      step: number of the first step, of 1, ..., N, after which the data is not finite; 0 where it always is.
      t: the time that this step starts at; 1 where there is none.
      before: the largest absolute value of the data that it starts with; 0 where there is none.
      stuck: whether the sampler gave up there itself (`Sampler.stuck`).
    """

    step: jax.Array
    t: jax.Array
    before: jax.Array
    stuck: jax.Array


def breaking(sampler: Sampler, times: ArrayLike, denoise: Denoiser, x: Tree, keys: jax.Array) -> Break:
    """A `run` as `samplers.solve`, for chains whose result is not finite: where they break, and not the data."""
    start = at_least_single(x)
    body = body_of(sampler, denoise, keys)

    def walk(carry, step):
        state, found = carry
        number, t = step[0][0], step[1]
        now, _ = body(state, step[0])
        finite = _of_data(sampler, now, lambda leaf, axes: jnp.isfinite(leaf).all(axes), jnp.logical_and)
        largest = _of_data(sampler, state, lambda leaf, axes: jnp.abs(leaf).max(axes), jnp.maximum)
        here = (found.step == 0) & ~finite
        seen = number, t, largest, sampler.stuck(now)
        found = Break(*(jnp.where(here, new, old) for new, old in zip(seen, found, strict=True)))
        return (now, found), None

    zeros = jnp.zeros(len(keys), jnp.float32)
    nowhere = Break(jnp.zeros(len(keys), jnp.int32), zeros + 1, zeros, zeros > 0)
    starts = check_grid(times)[:-1].astype(np.float32)
    return jax.lax.scan(walk, (sampler.init(start), nowhere), (steps_of(sampler, times, start), starts))[0][1]


def _of_data(
    sampler: Sampler,
    state: Tree,
    measure: Callable[[jax.Array, tuple[int, ...]], jax.Array],
    join: Callable[[jax.Array, jax.Array], jax.Array],
) -> jax.Array:
    """A measure of each example's data, [B], joined over its arrays."""
    leaves = jax.tree.leaves(sampler.done(state))
    return functools.reduce(join, (measure(leaf, tuple(range(1, leaf.ndim))) for leaf in leaves))
