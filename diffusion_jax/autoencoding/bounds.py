"""How likely data is under a model with codes: `(params, keys [B], x [B, ...]) -> bounds of log p(x)`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.autoencoding.codes import total
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian, draw
from diffusion_jax.core.protocols import Coder, Decode, Encode, LikelihoodFn


class Elbo(NamedTuple):
    """The evidence lower bound of each example, as bits an entry of x; of densities they may be negative.

    Attributes:
      total: [B], rate + distortion: at least -log2 p(x) / D.
      rate: [B], of KL(q(z | x) || p(z)).
      distortion: [B], of -log p(x | z).
    """

    total: jax.Array
    rate: jax.Array
    distortion: jax.Array


class Iwae(NamedTuple):
    """The importance-weighted bound of each example.

    Attributes:
      total: [B], bits an entry of x.
    """

    total: jax.Array


def elbo(code: Coder, decode: Decode) -> LikelihoodFn:
    """The evidence lower bound, by one draw of the code (Kingma & Welling 2014, equation 3)."""

    def bound(params, keys, x):
        coded = code(params, keys, x)
        entry = _bits_an_entry(x)
        distortion, rate = -total(decode(params, coded.z).log_prob(x)) * entry, coded.rate * entry
        return Elbo(rate + distortion, rate, distortion)

    return bound


def iwae(encode: Encode, decode: Decode, draws: int) -> LikelihoodFn:
    """log 1/K sum_k p(x, z_k) / q(z_k | x), K = `draws` (Burda et al. 2016, equation 8); p(z) = N(0, I).

    It rises with K, from the evidence lower bound at 1 to log p(x). Draws are made one after another, so memory does
    not depend on K.
    """

    def bound(params, keys, x):
        q = encode(params, x)

        def more(log_sum, number):
            z = draw(q, rng.each(keys, number))
            prior = Gaussian(jnp.zeros((), z.dtype), jnp.ones((), z.dtype))
            joint = total(decode(params, z).log_prob(x)) + total(prior.log_prob(z))
            return jnp.logaddexp(log_sum, joint - total(q.log_prob(z))), None

        start = jnp.full(x.shape[:1], -jnp.inf, jnp.result_type(x, jnp.float32))
        log_sum, _ = jax.lax.scan(more, start, jnp.arange(draws))
        return Iwae(-(log_sum - np.log(draws)) * _bits_an_entry(x))

    return bound


def _bits_an_entry(x: jax.Array) -> float:
    """Nats of an example as bits an entry of x [B, ...]."""
    return 1 / (np.log(2) * np.prod(x.shape[1:]))
