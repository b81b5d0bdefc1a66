"""Editing with a consistency function and nothing else (Song et al. 2023, algorithm 4).

What is known of an image is put back into every estimate, in coordinates where it is a part of the coefficients;
then noise is added anew. That is fast, but no sampling of the conditional law: what is free follows what is known
less than it should. Each function makes a `run` for `samplers.make_sample_fn`, with `samplers.ancestral` of
`consistency.process` on one of its grids.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Denoiser, Run
from diffusion_jax.diffusion.samplers import Sampler, solve

LUMINANCE = (0.2989, 0.5870, 0.1140)  # of red, green and blue


class Basis(NamedTuple):
    """Orthonormal coordinates: `to` gives an image's coefficients, of any shape, and `back` the image of them."""

    to: Callable[[jax.Array], jax.Array]
    back: Callable[[jax.Array], jax.Array]


PIXELS = Basis(lambda x: x, lambda x: x)


def edited(known: ArrayLike, mask: ArrayLike, basis: Basis = PIXELS, walk: Run = solve) -> Run:
    """A `run` that keeps the coefficients of `known` where `mask` is above 0.5.

    Args:
      known: images [B, H, W, C]; what is not known of them does not matter.
      mask: of coefficients, broadcasts to `basis.to(known)`.
      basis: the coordinates.
      walk: of the chain, `samplers.solve` or another (`samplers.film`).

    Raises:
      InputError: in the run, for data of another shape than `known`.
    """
    known = jnp.asarray(known)
    coefficients = basis.to(known)
    kept = jnp.broadcast_to(jnp.asarray(mask) > 0.5, coefficients.shape)
    start = basis.back(jnp.where(kept, coefficients, 0.0))

    def run(sampler: Sampler, times, denoise: Denoiser, x, keys):
        if x.shape != known.shape:
            raise InputError(f"what is known has the shape {known.shape}, and the data that is drawn {x.shape}")

        def holding(x_t, t):
            estimate = denoise(x_t, t)
            mixed = jnp.where(kept, coefficients.astype(x_t.dtype), basis.to(estimate.mean))
            return estimate._replace(mean=basis.back(mixed))

        return walk(sampler, times, holding, start.astype(x.dtype) + x, keys)

    return run


def inpainted(known: ArrayLike, mask: ArrayLike, walk: Run = solve) -> Run:
    """The pixels of `known`, [B, H, W, C], where `mask` (broadcasts) is above 0.5; they come out to the bit."""
    return edited(known, mask, walk=walk)


def coloured(grey: ArrayLike, walk: Run = solve) -> Run:
    """The colours of images [B, H, W, 3] of which the luminance is known."""
    return edited(grey, np.array([1.0, 0.0, 0.0]), of_channels(completed(LUMINANCE)), walk)


def enlarged(small: ArrayLike, factor: int, walk: Run = solve) -> Run:
    """Images [B, factor h, factor w, C] whose patches of factor x factor have the means `small`, [B, h, w, C]."""
    large = jnp.repeat(jnp.repeat(jnp.asarray(small), factor, axis=1), factor, axis=2)
    mask = np.arange(factor**2)[:, None] == 0
    return edited(large, mask, of_patches(completed(np.ones(factor**2)), factor), walk)


def completed(first: ArrayLike) -> np.ndarray:
    """An orthogonal matrix whose first column is in proportion to `first`, [n]; float64 [n, n].

    The reflection that takes the first unit vector there (Householder).
    """
    first = np.asarray(first, np.float64)
    unit = np.eye(len(first))[0]
    normal = first / np.linalg.norm(first) - unit
    square = normal @ normal
    return np.eye(len(first)) - (2 / square * np.outer(normal, normal) if square > 0 else 0.0)


def of_channels(matrix: np.ndarray) -> Basis:
    """The columns of an orthogonal `matrix`, [C, C], as coordinates of each pixel's colour."""
    return Basis(lambda x: _along(x, matrix), lambda x: _along(x, matrix.T))


def of_patches(matrix: np.ndarray, size: int) -> Basis:
    """The columns of an orthogonal `matrix`, [p^2, p^2], as coordinates of each channel of patches of `size` p.

    Coefficients are [B, H / p, W / p, p^2, C]. Raises `InputError` where p does not divide the image.
    """

    def to(x):
        batch, height, width, channels = x.shape
        if height % size or width % size:
            raise InputError(f"patches of {size} pixels do not divide an image of {height}x{width}")
        x = x.reshape(batch, height // size, size, width // size, size, channels)
        x = x.transpose(0, 1, 3, 5, 2, 4).reshape(batch, height // size, width // size, channels, size**2)
        return _along(x, matrix).swapaxes(3, 4)

    def back(x):
        batch, rows, columns, _, channels = x.shape
        x = _along(x.swapaxes(3, 4), matrix.T).reshape(batch, rows, columns, channels, size, size)
        return x.transpose(0, 1, 4, 2, 5, 3).reshape(batch, rows * size, columns * size, channels)

    return Basis(to, back)


def _along(x, matrix):
    return jnp.matmul(x, jnp.asarray(matrix, x.dtype), precision="highest")
