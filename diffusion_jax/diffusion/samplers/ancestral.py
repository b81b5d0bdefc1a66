"""Estimate, then correct: the sampler of DDPM, DDIM and every other process that has a bridge."""

import jax
import jax.numpy as jnp

from diffusion_jax.core import rng
from diffusion_jax.core.distributions import draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import End, Kernel
from diffusion_jax.diffusion.processes import Process, check_interval
from diffusion_jax.diffusion.samplers.core import Sampler


def on_mean(kernel: Kernel, keys: jax.Array) -> jax.Array:
    """An end of a chain: the kernel's mean. Noise on a finished image is never wanted, as in DDPM's Algorithm 2.

    Raises:
      InputError: the kernel has no mean, as that of tokens or of several parts.
    """
    if not hasattr(kernel, "mean"):
        raise InputError(
            f"a {type(kernel).__name__} has no mean for a chain to end on: give samplers.ancestral end=draw "
            "(diffusion_jax.core.distributions), or samplers.each_its_own for several parts"
        )
    return kernel.mean


def each_its_own(**ends: End) -> End:
    """The end of a chain of a `processes.product`: an end for each part, `on_mean` or `draw`."""

    def end(kernel, keys):
        parts = zip(sorted(ends), rng.split(keys, len(ends)), strict=True)
        return {name: ends[name](kernel[name], key) for name, key in parts}

    return end


def ancestral(process: Process, end: End = on_mean) -> Sampler:
    """x_s ~ p(x_s | x_t, x0_hat), again and again: DDPM's Algorithm 2, DDIM, or any other bridge.

    `end(kernel, keys)` makes the step that arrives at s = 0: `on_mean`, or `distributions.draw` for an exact
    posterior and for discrete data, which has no mean.
    """

    def plan(t, s):
        check_interval(t, s)
        return t, s == 0, process.bridge(t, s)

    def step(keys, x_t, plan, denoise):
        t, last, bridge = plan
        kernel = bridge(denoise(x_t, t), x_t)
        return jax.tree.map(lambda a, b: jnp.where(last, a, b), end(kernel, keys), draw(kernel, keys))

    return Sampler(plan, init=lambda x: x, step=step, done=lambda x: x)
