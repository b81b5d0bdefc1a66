"""The exact likelihood of networks that say of each token what they read off those before it."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Apply, Guide, LikelihoodFn
from diffusion_jax.diffusion.guidance import conditioned
from diffusion_jax.diffusion.likelihood.chain import make_denoiser
from diffusion_jax.diffusion.likelihood.terms import bits
from diffusion_jax.diffusion.parameterizations import Parameterization


class Exact(NamedTuple):
    """-log p(x0), exact.

    Attributes:
      log_prob: [B], log p(x0) in nats.
      total: [B], -log2 p(x0) in bits an entry.
    """

    log_prob: jax.Array
    total: jax.Array


def make_exact_fn(apply: Apply, parameterization: Parameterization, guide: Guide = conditioned) -> LikelihoodFn:
    """`exact_fn(params, keys [B], x0 int [B, ...], *cond) -> Exact`, in one call of the network: no key is used.

    log p(x0) is the sum of log p(x0_i | x0_<i) (van den Oord et al. 2016, equation 1): of x0 whole, such a network
    says all of them at once. A guided model has a likelihood too, for a guide acts on each of these laws.

    Args:
      apply: `(params, tokens [B, ...], time [B], *cond) -> logits [B, ..., K]`, each of tokens before its own.
      parameterization: `parameterizations.logits`.
      guide: what is made of the condition.

    Raises:
      InputError: x0 that is not of integers.
    """
    made = make_denoiser(apply, parameterization, (), guide)

    def exact_fn(params, keys, x0, *cond):
        del keys
        if not jnp.issubdtype(x0.dtype, jnp.integer):
            raise InputError(f"tokens are integers 0, ..., K - 1, not {x0.dtype}")
        nats = made(params, *cond)(x0, 0.0).log_prob(x0).reshape(len(x0), -1)
        return Exact(nats.sum(-1), bits(-nats.mean(-1)))

    return exact_fn
