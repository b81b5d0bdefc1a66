"""Degradations of images, `D(x0, t)` of one image and a scalar t, for `cold` and `noisy`. Blur is in `heat`.

All are linear in x0, and D(x0, 0) = x0.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Degrade


def pool(shape: Sequence[int]) -> Degrade:
    """Blocks of 2, 4, 8, ... pixels a side become their mean, one level fading into the next; all are one at t = 1.

    Args:
      shape: (H, W, C); H and W divide by the same powers of 2 until one of them is odd, and what is left then is
        averaged in one last level. `InputError` where there is not a single level.
    """
    height, width = shape[:2]
    sizes = [(1, 1)]
    while height % (2 * sizes[-1][0]) == 0 and width % (2 * sizes[-1][1]) == 0:
        sizes.append((2 * sizes[-1][0], 2 * sizes[-1][1]))
    if sizes[-1] != (height, width):
        sizes.append((height, width))
    if len(sizes) == 1:
        raise InputError(f"an image of {height}x{width} cannot be pooled")

    def pooled(x, rows, columns):
        blocks = x.reshape(height // rows, rows, width // columns, columns, -1)
        return jnp.broadcast_to(blocks.mean((1, 3), keepdims=True), blocks.shape).reshape(x.shape)

    def degrade(x0, t):
        levels = jnp.stack([pooled(x0, *size) for size in sizes])
        # A hat around each level: two neighbours are mixed, and weights add up to 1.
        weight = jnp.maximum(0.0, 1 - jnp.abs(t * (len(sizes) - 1) - jnp.arange(len(sizes))))
        return jnp.tensordot(weight, levels, axes=1).astype(x0.dtype)

    return degrade


def mask(gone: ArrayLike, fill: float = 0.0, softness: float = 0.1) -> Degrade:
    """Pixels fade to `fill`, each at its own time (Cold Diffusion's inpainting, section 4.2).

    Args:
      gone: [H, W], when each pixel has faded, in (0, 1]: `from_centre`, a random order, any.
      fill: what is left.
      softness: how long a pixel takes to fade, in units of t, > 0; those gone before that begin at t = 0.
    """
    gone = np.asarray(gone, np.float64)
    if not (gone.ndim == 2 and (gone > 0).all() and (gone <= 1).all() and softness > 0):
        raise InputError("pixels are gone at times [H, W] in (0, 1], and take a softness > 0 for it")
    start = np.maximum(gone - softness, 0.0)

    def degrade(x0, t):
        lost = jnp.clip((t - start) / (gone - start), 0.0, 1.0)[..., None]
        return (x0 + lost * (fill - x0)).astype(x0.dtype)

    return degrade


def from_centre(height: int, width: int) -> np.ndarray:
    """Times for `mask`, a hole that grows from the centre and reaches the corners at t = 1; float64 [H, W]."""
    row, column = np.ogrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    distance = np.sqrt(row**2 + column**2)
    return np.maximum(distance / distance.max(), 0.01)
