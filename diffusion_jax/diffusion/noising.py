"""Noise that is added to what a network is told, by a table that is not that of its own chain."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.diffusion.gaussian import q_sample
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.stages import Shape, Stage

LEVEL = "noise_level"  # the condition: an index of a table, or a time


class Noising(NamedTuple):
    """A table of noise.

    Attributes:
      schedule: alpha and sigma, known at i / num.
      num: how many entries the table has.
    """

    schedule: Schedule
    num: int

    def corrupt(self, keys: jax.Array, x: jax.Array, index: jax.Array) -> jax.Array:
        """x ~ q(x_t | x), t = (index + 1) / num.

        Args:
          keys: one an example, [B].
          x: float [B, ...].
          index: [B], 0 to num - 1 as schedulers count; of any other the example is NaN.
        """
        noisy = q_sample(self.schedule, x, (index + 1) / self.num, rng.normal_like(keys, x))
        return jnp.where(expand((index >= 0) & (index < self.num), x), noisy, jnp.nan)


def renoise(name: str, noising: Noising, entry: str, shape: Shape) -> Stage:
    """A stage that adds noise to `entry`, at the index that "noise_level" tells: float [B], the network's too.

    DeepFloyd IF and the x4 upscaler are told a small image so, and how noisy it is.
    """

    def run(params, keys, cond):
        return {entry: noising.corrupt(keys, cond[entry], cond[LEVEL])}

    return Stage(name, run, {entry: shape, LEVEL: ()}, {entry: shape})
