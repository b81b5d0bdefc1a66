"""Tokens one after another: the sampler of autoregressive models."""

import math

import jax
import numpy as np

from diffusion_jax.core.distributions import Categorical, draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.samplers.core import Sampler


def positions(num: int) -> Sampler:
    """Each step draws one token from what the denoiser says of it and writes it, in row-major order.

    The law is that of `ancestral` for `processes.raster` in as many steps, which draws all tokens and keeps one.

    Args:
      num: how many tokens an example has. The grid has as many steps (`timesteps.linear(num)`).

    Raises:
      InputError: a grid of another number of steps, data with another number of tokens, or a denoiser that does not
        answer with logits of each token.
    """

    def plan(t, s):
        if len(t) != num:
            raise InputError(f"{num} tokens are drawn in as many steps, one after another, not in {len(t)}")
        return t, np.arange(num)

    def init(x):
        if math.prod(x.shape[1:]) != num:
            raise InputError(f"data {x.shape} has {math.prod(x.shape[1:])} tokens an example, not {num}")
        return x

    def step(keys, x, plan, denoise):
        t, place = plan
        logits = denoise(x, t).logits
        if logits.shape[:-1] != x.shape:
            raise InputError(f"the network answers {logits.shape} where logits of {x.shape} tokens are read")
        here = jax.lax.dynamic_index_in_dim(logits.reshape(len(x), num, -1), place, axis=1, keepdims=False)
        token = draw(Categorical(here), keys)[:, None].astype(x.dtype)
        return jax.lax.dynamic_update_slice_in_dim(x.reshape(len(x), num), token, place, axis=1).reshape(x.shape)

    return Sampler(plan, init, step, done=lambda x: x)
