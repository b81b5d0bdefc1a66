"""Blur as heat that spreads: inverse heat dissipation (Rissanen et al. 2023)."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import namespace
from diffusion_jax.core.protocols import Degrade, OfTime
from diffusion_jax.diffusion.processes.core import Process
from diffusion_jax.diffusion.processes.degradation import noisy


def cosine_basis(size: int) -> np.ndarray:
    """The orthonormal DCT-II as a matrix, float64 [size, size]: row n is the cosine of frequency n."""
    frequency, position = np.arange(size)[:, None], np.arange(size)[None, :]
    basis = np.sqrt(2 / size) * np.cos(np.pi * frequency * (position + 0.5) / size)
    basis[0] /= np.sqrt(2)
    return basis


def dissipation_rates(height: int, width: int) -> np.ndarray:
    """Lambda = pi^2 (n^2 / H^2 + m^2 / W^2): how fast each DCT frequency dies, float64 [H, W] (section 3.1)."""
    n, m = np.arange(height)[:, None] / height, np.arange(width)[None, :] / width
    return np.pi**2 * (n**2 + m**2)


def blur(shape: Sequence[int], width: OfTime) -> Degrade:
    """`D(x0, t)`: the heat equation run for a time width(t)^2 / 2, a Gaussian blur of `width(t)` pixels.

    Args:
      shape: (H, W, C) of the images.
      width: `t -> pixels`, standard deviation of the blur, with width(0) = 0.
    """
    rows, columns = cosine_basis(shape[0]), cosine_basis(shape[1])
    rates = dissipation_rates(*shape[:2])

    def degrade(x0, t):
        spectrum = jnp.einsum("nh,mw,hwc->nmc", rows, columns, x0, precision="highest")
        spectrum *= jnp.exp(-jnp.asarray(rates)[..., None] * width(t) ** 2 / 2)
        return jnp.einsum("nh,mw,nmc->hwc", rows, columns, spectrum, precision="highest").astype(x0.dtype)

    return degrade


def log_spaced(smallest: float = 0.5, largest: float = 20.0) -> OfTime:
    """Blur widths equally spaced in their logarithm over t in (0, 1], and 0 at t = 0 (section 3.3).

    Below t = 0.005 (the paper's K = 200 steps) the width rises linearly from 0, so that it is continuous.
    """
    first = 1 / 200

    def width(t):
        xp = namespace(t)
        spread = smallest * (largest / smallest) ** ((xp.asarray(t, float) - first) / (1 - first))
        return xp.where(t < first, smallest * t / first, spread)

    return width


def heat_dissipation(
    shape: Sequence[int],
    width: OfTime,
    means: Callable[[jax.Array], jax.Array],
    training_noise: float = 0.01,
    sampling_noise: float = 0.0125,
) -> Process:
    """Inverse heat dissipation: blur with a little noise, undone by predicting the image and blurring it less.

    A step back is D(x0_hat, s) + sampling_noise z (the paper's network predicts that mean; ours predicts x0 and the
    blur is known). x_t carries noise of `training_noise`; end the chain on the mean.

    Args:
      shape: (H, W, C).
      width: `t -> blur in pixels`, see `log_spaced`.
      training_noise, sampling_noise: standard deviations; the paper's, which are for images in [0, 1].
      means: `key -> [C]`, colours of fully blurred images, one draw (from the training images' means).
    """

    def prior(key, shape):
        colour_key, noise_key = jax.random.split(key)
        noise = rng.flat(jax.random.normal, noise_key, shape)
        return jnp.broadcast_to(means(colour_key), shape) + training_noise * noise

    process = noisy(blur(shape, width), lambda t: sampling_noise * namespace(t).ones_like(t), prior, refresh=1.0)
    training = noisy(blur(shape, width), lambda t: training_noise * namespace(t).ones_like(t), prior)
    return process._replace(corrupt=training.corrupt)
