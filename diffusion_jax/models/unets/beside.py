"""A network that sees more channels than it is asked for: what is known of an image beside the noisy one."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.models.blocks.conditioning import apart

BESIDE = "beside"


class Beside(nn.Module):
    """`network`, with the condition "beside", float [B, H, W, D], laid beside x as its last channels.

    A mask and the latents of a masked image, say, as in Stable Diffusion's inpainting (Rombach et al. 2022, section
    4.5). Parameters: {"network": the network's}.

    Attributes:
      network: any network for images of C + D channels; it gives the rest of the conditions their meaning.
    """

    network: nn.Module

    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array],
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The network's output for x [B, H, W, C]; `InputError` without the condition."""
        known, rest = apart(cond, BESIDE)
        return self.network(jnp.concatenate([x, known.astype(x.dtype)], axis=-1), time, rest, dropout_keys)
