"""Estimate, then correct: the sampler of DDPM, DDIM and every other process that has a bridge."""

from collections.abc import Callable

import jax.numpy as jnp

from diffusion_jax.distributions import draw
from diffusion_jax.processes import Process, check_interval
from diffusion_jax.samplers.core import Sampler


def ancestral(process: Process, end: Callable = lambda kernel, keys: kernel.mean) -> Sampler:
    """x_s ~ p(x_s | x_t, x0_hat), again and again: DDPM's Algorithm 2, DDIM, or any other bridge.

    `end(kernel, keys)` makes the step that arrives at s = 0. By default it takes the kernel's mean: noise
    on the finished image is never wanted, as in Algorithm 2. `draw` samples it, for an exact posterior.
    """

    def plan(t, s):
        check_interval(t, s)
        return t, s == 0, process.bridge(t, s)

    def step(keys, x_t, plan, denoise):
        t, last, bridge = plan
        kernel = bridge(denoise(x_t, t), x_t)
        return jnp.where(last, end(kernel, keys), draw(kernel, keys))

    return Sampler(plan, init=lambda x: x, step=step, done=lambda x: x)
