"""Bottlenecks of real numbers: `(params, keys [B], q) -> Code`. Those of discrete codes are in `quantizers`."""

from typing import Any

import jax
import jax.numpy as jnp

from diffusion_jax.autoencoding.codes import Code, total
from diffusion_jax.core.distributions import Gaussian, draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Bottleneck, Tree


def mean(params: Tree, keys: jax.Array, q: Any) -> Code:
    """The mean of q, for nothing: a plain autoencoder's code."""
    return _free(q.mean)


def sampled(params: Tree, keys: jax.Array, q: Gaussian) -> Code:
    """A draw of q at the rate KL(q || N(0, I)), nats (variational autoencoders, Kingma & Welling 2014, equation 10).

    The draw is the mean plus the deviation times noise, so the gradient reaches both.
    """
    z = draw(q, keys)
    rate = total(q.kl(Gaussian(jnp.zeros((), z.dtype), jnp.ones((), z.dtype))))
    return Code(z, rate, jnp.zeros_like(rate), z)


def top_k(k: int) -> Bottleneck:
    """The k largest entries of the mean, the others 0 (k-sparse autoencoders, Makhzani & Frey 2014, section 2.1).

    Exactly k pass: of equal entries those of the lowest index. No gradient reaches the others.

    Args:
      k: at least 1; `InputError` in the call where there are fewer units.
    """

    def bottleneck(params: Tree, keys: jax.Array, q: Any) -> Code:
        return _free(k_largest(q.mean, k))

    return bottleneck


def k_largest(h: jax.Array, k: int) -> jax.Array:
    """`h` [B, units] with all but its `k` largest entries 0.

    Raises:
      InputError: k is not within 1 and the number of units.
    """
    if not 1 <= k <= h.shape[-1]:
        raise InputError(f"{k} of {h.shape[-1]} units cannot be kept; give 1 to {h.shape[-1]}")
    kept, index = jax.lax.top_k(h, k)
    return jax.vmap(lambda kept, index: jnp.zeros(h.shape[1:], h.dtype).at[index].set(kept))(kept, index)


def _free(z: jax.Array) -> Code:
    nothing = jnp.zeros(z.shape[:1], jnp.float32)
    return Code(z, nothing, nothing, z)
