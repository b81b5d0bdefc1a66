"""A network that sees a small image beside the noisy one: a stage of a cascade (Ho et al. 2022)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.models.blocks.conditioning import apart

LOW = "low_res"


class SuperResolution(nn.Module):
    """`network`, with the condition "low_res", float [B, h, w, C], enlarged and laid beside x as more channels.

    Enlarged bilinearly, as in ADM's upsamplers. How noisy the small image is may be another condition, which the
    network hears as a number: `embed={"noise_level": NumberEmbedding()}`.

    Attributes:
      network: any network for images; it gives the rest of the conditions their meaning.
    """

    network: nn.Module

    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array],
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The network's output for x [B, H, W, C]; `InputError` without a small image."""
        small, rest = apart(cond, LOW)
        beside = jax.image.resize(small, (*x.shape[:3], small.shape[-1]), "bilinear")
        return self.network(jnp.concatenate([x, beside.astype(x.dtype)], axis=-1), time, rest, dropout_keys)
