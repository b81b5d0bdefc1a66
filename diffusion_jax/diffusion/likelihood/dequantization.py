"""From a density of real numbers to the probability of levels (Theis et al. 2016; Flow++, Ho et al. 2019).

An image has levels k = 0, ..., K - 1, shown as 2 k / (K - 1) - 1. The probability of a level is the integral of the
density over its bin, of width w = 2 / (K - 1), so for any law q(u | k) of where in the bin, u in (0, 1),

    -log P(k) <= E_q[log q(u | k) - log p(x)] - log w an entry,     x = 2 k / (K - 1) - 1 + (u - 1/2) w.

For 256 levels -log2 w = 6.994 bits; the usual 7 belong to data (k + u) / 128 - 1, which is scaled a little otherwise.
A *dequantiser* is `(keys [B], levels int [B, ...]) -> (u [B, ...], log q [B] in nats)`.
"""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Dequantize, Lift, LogDensity
from diffusion_jax.diffusion.likelihood.chain import check_keys
from diffusion_jax.diffusion.likelihood.terms import bits

# `images int [B, ...] -> (m, log s)`, each [B, ...]: of the law of logit u.
Conditional: TypeAlias = Callable[[jax.Array], tuple[jax.Array, jax.Array]]


class Dequantized(NamedTuple):
    """A bound of -log2 P(image), from one draw of u.

    Attributes:
      total: [B], the bound in bits an entry.
      log_prob: [B], log p(x), nats.
      log_q: [B], log q(u | image), nats.
    """

    total: jax.Array
    log_prob: jax.Array
    log_q: jax.Array


def lifted(dequantize: Dequantize, levels: int = 256) -> Lift:
    """`(keys [B], images int [B, ...]) -> (x float [B, ...], log q [B])`: a draw of real numbers in the bins.

    Arguments and errors as of `dequantized`.
    """
    width = 2 / (_count(levels) - 1)

    def lift(keys, images):
        _check(images, levels)
        u, log_q = dequantize(keys, images)
        return images * width - 1 + (u - 0.5) * width, log_q

    return lift


def level_bits(log_prob: jax.Array, log_q: jax.Array, size: int, levels: int = 256) -> jax.Array:
    """The bound in bits an entry, from log p(x) and log q(u | image) of images of `size` entries, nats."""
    return bits((log_q - log_prob) / size - np.log(2 / (levels - 1)))


def dequantized(
    density: LogDensity, dequantize: Dequantize, levels: int = 256
) -> Callable[[jax.Array, jax.Array], Dequantized]:
    """`bits_fn(keys [B], images int [B, ...]) -> Dequantized`.

    Args:
      density: `(keys [B], x float32 [B, ...]) -> log p(x) [B]` in nats:
        `lambda keys, x: ode_likelihood(denoise, schedule, times, x, keys).log_prob`. Or a tree of such, as of a
        density and its bound, for the same draw of u: then `total` and `log_prob` are trees too.
      dequantize: `uniform_dequantizer`, `logit_normal_dequantizer(...)`, or any dequantiser, a conditional flow's
        for instance. Trained by the gradient of the mean of `total`.
      levels: K.

    Raises:
      InputError: images that are not integers, or concrete ones that are out of range.
    """
    lift = lifted(dequantize, levels)

    def bits_fn(keys, images):
        draw_keys, density_keys = rng.split(check_keys(keys, images), 2)
        x, log_q = lift(draw_keys, images)
        log_prob = density(density_keys, x)
        size = math.prod(images.shape[1:])
        total = jax.tree.map(lambda log_prob: level_bits(log_prob, log_q, size, levels), log_prob)
        return Dequantized(total, log_prob, log_q)

    return bits_fn


def uniform_dequantizer(keys: jax.Array, images: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Anywhere in the bin: q = 1."""
    u = jax.vmap(lambda key: rng.flat(jax.random.uniform, key, images.shape[1:]))(keys)
    return u, jnp.zeros(len(images), u.dtype)


def logit_normal_dequantizer(conditional: Conditional) -> Dequantize:
    """Variational dequantisation by u = sigmoid(m + s n), n ~ N(0, 1), independent given the image.

    Args:
      conditional: `images int [B, ...] -> (m, log s)`, each [B, ...]: a network with its parameters inside, or
        `by_level(params)`.
    """

    def dequantize(keys, images):
        mean, log_std = conditional(images)
        noise = rng.normal_like(keys, mean)
        logit = mean + jnp.exp(log_std) * noise
        # log q(u) = log N(noise) - log s - log u (1 - u)
        log_q = -0.5 * (noise**2 + np.log(2 * np.pi)) - log_std
        log_q += jax.nn.softplus(logit) + jax.nn.softplus(-logit)
        return jax.nn.sigmoid(logit), log_q.reshape(len(images), -1).sum(1)

    return dequantize


def by_level(params: Mapping[str, jax.Array]) -> Conditional:
    """The simplest conditional of `logit_normal_dequantizer`: m and log s of a pixel depend on its level alone.

    `params` has "mean" and "log_std", float [K] each; `by_level_init` gives where to start.
    """
    return lambda images: (params["mean"][images], params["log_std"][images])


def by_level_init(levels: int = 256) -> dict[str, jax.Array]:
    """Parameters of `by_level` with which q is nearest to uniform: 0.014 bits an entry."""
    return {"mean": jnp.zeros(levels), "log_std": jnp.full(levels, np.log(1.75))}


def _count(levels: int) -> int:
    if levels < 2:
        raise InputError(f"images have at least 2 levels, not {levels}")
    return levels


def _check(images, levels: int):
    if not jnp.issubdtype(images.dtype, jnp.integer):
        raise InputError(f"levels are integers 0, ..., {levels - 1}, not {images.dtype}")
    if isinstance(images, np.ndarray) and images.size and not 0 <= images.min() <= images.max() < levels:
        raise InputError(f"levels run from 0 to {levels - 1}, not from {images.min()} to {images.max()}")
