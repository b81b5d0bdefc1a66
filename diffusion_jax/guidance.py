"""Transforms of a denoiser: `Denoiser -> Denoiser`, applied before the sampler sees it."""

from collections.abc import Callable

import jax.numpy as jnp


def clip(low: float = -1.0, high: float = 1.0) -> Callable:
    """Keep the estimate of x0 inside the data's range at every step, as DDPM's sampler does.

    Bridges see x0 only: the noise that DDIM carries on is then what the clipped x0 implies, which diffusers calls
    `use_clipped_model_output=True`.
    """

    def transform(denoise):
        def clipped(x_t, t):
            estimate = denoise(x_t, t)
            return estimate._replace(mean=jnp.clip(estimate.mean, low, high))

        return clipped

    return transform


def part(name: str, transform: Callable) -> Callable:
    """`transform` for one part of a dictionary (`processes.product`); it sees the estimate of that part alone."""

    def both(denoise):
        def transformed(x_t, t):
            estimate = denoise(x_t, t)
            return estimate | {name: transform(lambda x, t: estimate[name])(x_t[name], t)}

        return transformed

    return both
