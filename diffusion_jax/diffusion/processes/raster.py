"""Raster order: the masked process in which tokens are hidden one after another, from the last to the first.

At time t the first round((1 - t) N) of N tokens are known, in row-major order, and the others are masks. So nothing
is random but what the bridge reveals: a chain of N steps draws x0 token by token, each given all those before it, as
an autoregressive model does. (Masked diffusion draws the order too: `categorical.masked`.)
"""

import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffusion_jax.core.arrays import expand, namespace
from diffusion_jax.core.distributions import Categorical, certain
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.processes.core import Process, check_interval, from_the_end


def raster(vocab: int) -> Process:
    """Tokens 0, ..., vocab - 1 of any shape, hidden from the last to the first; `vocab` is the mask.

    `corrupt` takes int tokens and returns int32 tokens, and () for noise, for there is none. `bridge` takes a
    `Categorical` [B, ..., vocab] (`InputError` for another) and tokens [B, ...], and returns a `Categorical` of
    vocab + 1: the estimate where a token is revealed, and x_t elsewhere. Tokens of one step are drawn independently:
    in N steps, as `samplers.positions` takes them, it is a step for each. The prior is known at t = 1: all masks.
    """

    def corrupt(key, x0, t):
        del key
        return jnp.where(_level(x0.shape) < 1 - t, x0, vocab).astype(jnp.int32), ()

    def bridge(t, s):
        check_interval(t, s)
        return Partial(_correct, *(1 - namespace(time).asarray(time, float) for time in (t, s)))

    def _correct(known, then, estimate: Categorical, x_t):
        if estimate.logits.shape != (*x_t.shape, vocab):
            raise InputError(
                f"tokens {x_t.shape} of a vocabulary of {vocab} take logits {(*x_t.shape, vocab)}, "
                f"not {estimate.logits.shape}"
            )
        level = _level(x_t.shape[1:])[None]
        due = (level >= expand(known, x_t)) & (level < expand(then, x_t))
        masked = jnp.full_like(estimate.logits[..., :1], -jnp.inf)
        revealed = jnp.concatenate([estimate.logits, masked], axis=-1)
        return Categorical(jnp.where(due[..., None], revealed, certain(x_t, vocab + 1).logits))

    return Process(corrupt, bridge, from_the_end(lambda key, shape: jnp.full(shape, vocab, jnp.int32)))


def _level(shape) -> np.ndarray:
    """Up to which 1 - t each token is hidden: in the middle of its step of N, so that rounding changes none."""
    size = np.prod(shape, dtype=int)
    return ((np.arange(size) + 0.5) / size).astype(np.float32).reshape(shape)
