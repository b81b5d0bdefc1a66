"""Images made larger or smaller: [B, h, w, C] -> [B, H, W, C], of any float type.

"Bilinear" and "bicubic" name several functions each. They differ in where the pixels of one size lie among those of
the other, in the cubic's sharpness, and in whether shrinking averages; a network knows the one that it was trained
with.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.errors import InputError


def bilinear(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """To `shape` = (H, W): linear between the centres of pixels, which is the usual reading (ADM's upsamplers).

    Shrinking averages over a triangle of two of the new pixels' width.
    """
    return jax.image.resize(x, (len(x), *shape, x.shape[-1]), "bilinear")


def bicubic(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """To `shape` = (H, W): Keys's cubic with a = -1/2 between the centres of pixels, as PIL and "antialiased" ones.

    PyTorch's, where not antialiased, takes a = -3/4 and is another.
    """
    return jax.image.resize(x, (len(x), *shape, x.shape[-1]), "bicubic")


def aligned(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """To `shape` = (H, W): linear, the outermost pixels of both sizes in the same place ("aligned corners").

    New row i lies at i (h - 1) / (H - 1). Shrinking leaves pixels out.
    """
    rows, columns = (_corner_to_corner(*sizes) for sizes in zip(x.shape[1:3], shape, strict=True))
    return jnp.einsum(
        "ij,bjkc,lk->bilc", rows.astype(x.dtype), x, columns.astype(x.dtype), precision=jax.lax.Precision.HIGHEST
    )


def _corner_to_corner(size: int, wanted: int) -> np.ndarray:
    """Weights [wanted, size], of which each row adds up to 1."""
    place = np.arange(wanted) * ((size - 1) / max(wanted - 1, 1))
    return np.maximum(0.0, 1 - np.abs(place[:, None] - np.arange(size)))


def means(x: jax.Array, shape: Sequence[int]) -> jax.Array:
    """To `shape` = (H, W), of which h and w are multiples: each pixel the mean of its block.

    Raises:
      InputError: they are no multiples.
    """
    batch, height, width, channels = x.shape
    high, wide = shape
    if height % high or width % wide:
        raise InputError(f"images of {height}x{width} are no blocks of {high}x{wide} pixels; give sizes that divide")
    return x.reshape(batch, high, height // high, wide, width // wide, channels).mean((2, 4))
