"""A network that is told texts as ids: the encoder is a part of it, and is trained with it."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.models.blocks.conditioning import apart


def entries(tokens: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
    """What networks are told of encoded texts: "tokens" [B, L, D], 0 at padding, and "token_mask" [B, L]."""
    return {"tokens": jnp.where(mask[..., None], tokens, 0), "token_mask": mask}


class ToldTexts(nn.Module):
    """`network`, told a text's encoded tokens (`entries`) in place of "ids" and "mask".

    Parameters: {"text": the encoder's, "network": the network's}. Both get gradients. Each part is a module that can
    be applied by itself: a chain encodes once, and then applies `network` alone.

    Attributes:
      text: `(ids int [B, L], mask bool [B, L]) -> [B, L, D]`, such as `T5Encoder`.
      network: any network that hears "tokens" and "token_mask"; it gives the rest of the conditions their meaning.
    """

    text: nn.Module
    network: nn.Module

    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The network's output for x; `InputError` without "ids" or "mask"."""
        ids, rest = apart(cond, "ids")
        mask, rest = apart(rest, "mask")
        return self.network(x, time, {**(rest or {}), **entries(self.text(ids, mask), mask)}, dropout_keys)
