"""A network that sees a small image beside the noisy one: a stage of a cascade (Ho et al. 2022)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core import resizing
from diffusion_jax.core.protocols import Resize
from diffusion_jax.models.blocks.conditioning import apart

LOW = "low_res"


class SuperResolution(nn.Module):
    """`network`, with the condition "low_res", float [B, h, w, C], enlarged and laid beside x as more channels.

    How noisy the small image is may be another condition, which the network hears as a number:
    `embed={"noise_level": NumberEmbedding(scale=1000)}` of a level in [0, 1].

    Attributes:
      network: any network for images; it gives the rest of the conditions their meaning.
      enlarge: `(low_res, (H, W)) -> [B, H, W, C]` (`core.resizing`); bilinearly by default, as ADM's upsamplers do.
    """

    network: nn.Module
    enlarge: Resize = resizing.bilinear

    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array],
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The network's output for x [B, H, W, C]; `InputError` without a small image."""
        small, rest = apart(cond, LOW)
        beside = self.enlarge(small, x.shape[1:3])
        return self.network(jnp.concatenate([x, beside.astype(x.dtype)], axis=-1), time, rest, dropout_keys)
