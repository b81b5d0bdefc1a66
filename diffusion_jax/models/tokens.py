"""Pixels as tokens: a U-Net whose input and output are levels of grey, not numbers."""

from collections.abc import Mapping

import jax
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.unets.unet import UNet


class TokenUNet(nn.Module):
    """A U-Net from tokens on pixels to their logits.

    Neighbours in the picture are neighbours to it, which a transformer would have to learn first.

    Attributes:
      unet: the network; its out_channels are replaced.
      vocab: number of tokens, a mask counted.
      features: channels of a token's embedding.
    """

    unet: UNet
    vocab: int
    features: int = 16

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Logits, float32 [B, H, W, 1, vocab].

        Args:
          x: integer [B, H, W, 1]. A token beyond the vocabulary makes its example NaN.
          time: [B], integer or float, from 0 to 1000.
          cond, dropout_keys: see `UNet`.

        Raises:
          InputError: more than one token a pixel, or as `UNet`.
        """
        if x.shape[-1] != 1:
            raise InputError(f"tokens {x.shape}: a TokenUNet takes one a pixel, [B, H, W, 1]")
        h = nn.Embed(self.vocab, self.features, embedding_init=nn.initializers.normal(1.0), name="tokens")(x[..., 0])
        network = self.unet.clone(out_channels=self.vocab, parent=self, name="network")
        logits = network(h, time, cond, dropout_keys)
        return logits[..., None, :]
