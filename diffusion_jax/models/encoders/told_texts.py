"""A network that is told texts as ids: the encoder is a part of it, and is trained with it."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.models.blocks.conditioning import apart


class ToldTexts(nn.Module):
    """`network`, told the mean of a text's encoded tokens as "pooled", [B, D], in place of "ids" and "mask".

    Parameters: {"text": the encoder's, "network": the network's}. Both get gradients.

    Attributes:
      text: `(ids int [B, L], mask bool [B, L]) -> [B, L, D]`, such as `T5Encoder`.
      network: any network that hears "pooled"; it gives the rest of the conditions their meaning.
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
        """The network's output for x; `InputError` without "ids" or "mask". A text of no tokens is pooled to 0."""
        ids, rest = apart(cond, "ids")
        mask, rest = apart(rest, "mask")
        tokens = self.text(ids, mask)
        shown = mask[..., None].astype(tokens.dtype)
        pooled = (tokens * shown).sum(1) / jnp.maximum(shown.sum(1), 1)
        return self.network(x, time, {**(rest or {}), "pooled": pooled}, dropout_keys)
