"""Hints that can be read off an image: what a ControlNet is told in training."""

import jax
import jax.numpy as jnp
import numpy as np

# Sobel's: the derivative across, smoothed along; its largest answer to values in [-1, 1] is 8.
_ACROSS = np.array([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])


def edges(x0: jax.Array) -> jax.Array:
    """Where an image changes: the length of its Sobel gradient, averaged over channels.

    Args:
      x0: float [B, H, W, C] in [-1, 1].

    Returns:
      [B, H, W, 1] in [0, 1.42]; 1 is a straight edge from black to white. The border is continued outwards.
    """
    grey = jnp.pad(x0.mean(-1), ((0, 0), (1, 1), (1, 1)), mode="edge")
    kernels = jnp.asarray(np.stack([_ACROSS, _ACROSS.T])[:, None], grey.dtype)
    slopes = jax.lax.conv(grey[:, None], kernels, (1, 1), "VALID")
    return jnp.sqrt((slopes**2).sum(1))[..., None] / 8
