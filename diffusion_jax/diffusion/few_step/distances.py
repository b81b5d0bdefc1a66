"""How far two estimates are apart, for consistency losses: `(x [B, ...], y [B, ...], context) -> [B]`.

The context (`losses.Context`) has what the run holds, for a distance that a network measures (`held`). The others
look at x and y alone.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.core.distributions import mean_over_entries
from diffusion_jax.core.protocols import Distance, Tree


def l2(x: jax.Array, y: jax.Array, context: Any = None) -> jax.Array:
    """The mean squared difference of an example's entries."""
    return mean_over_entries((x - y) ** 2)


def l1(x: jax.Array, y: jax.Array, context: Any = None) -> jax.Array:
    """The mean absolute difference of an example's entries."""
    return mean_over_entries(jnp.abs(x - y))


def pseudo_huber(c: float | None = None) -> Distance:
    """sqrt(||x - y||^2 + c^2) - c, with one norm an example (improved consistency training, Song & Dhariwal 2023).

    Of single entries, averaged, it would be another distance (`huber_of_entries`). Its gradient is at most 1 long.

    Args:
      c: >= 0; 0 is the norm itself, whose gradient at x = y is taken as 0. None is the paper's 0.00054 sqrt(d),
        with d entries in an example.
    """

    def distance(x, y, context=None):
        difference = (x - y).reshape(len(x), -1)
        bend = 0.00054 * math.sqrt(difference.shape[1]) if c is None else c
        return _huber(jnp.sum(difference**2, axis=1), bend)

    return distance


def huber_of_entries(c: float = 0.001) -> Distance:
    """The mean over entries of sqrt((x - y)^2 + c^2) - c, as latent consistency models' code has it; c > 0."""
    return lambda x, y, context=None: mean_over_entries(_huber((x - y) ** 2, c))


def held(compare: Callable[[Tree, jax.Array, jax.Array], jax.Array], name: str) -> Distance:
    """The distance that a network measures, whose parameters the run holds as `context.held[name]`.

    Args:
      compare: `(params, x [B, ...], y [B, ...]) -> [B]`.
      name: of the parameters. They are an argument of the compiled program; what a function closes over would be a
        constant in its text.
    """
    return lambda x, y, context: compare(context.held[name], x, y)


def _huber(square, c: float):
    """sqrt(square + c^2) - c without its cancellation, and with a gradient of 0 where there is nothing."""
    root = jnp.sqrt(jnp.where(square > 0, square, 1.0) + c**2)
    return jnp.where(square > 0, square / (root + c), 0.0)
