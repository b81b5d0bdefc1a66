"""How unCLIP's decoder is told an image's embedding and a text (Ramesh et al. 2022, section 2.1)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.models.blocks.layers import dense
from diffusion_jax.models.encoders.transformer import layer_norm


class TextProjection(nn.Module):
    """An image's embedding and an encoded text, as a U-Net's conditions "tokens", "token_mask" and "vector".

    The image's embedding becomes a few tokens before those of the text, and with the text's a vector that is added to
    the time's embedding. The defaults are those of Karlo, of 7,878,400 parameters for embeddings of 768 features.

    Attributes:
      extra: tokens that are made of the image's embedding.
      features: of a token.
      width: of the vector.
      dtype: of dense layers and result; the statistics of normalisation are float32.
    """

    extra: int = 4
    features: int = 1536
    width: int = 1280
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        image_embedding: jax.Array,
        text_embedding: jax.Array,
        tokens: jax.Array,
        token_mask: jax.Array,
        withheld: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """What the decoder is told.

        Args:
          image_embedding: [B, E].
          text_embedding: [B, E'].
          tokens: [B, L, D], the encoded text.
          token_mask: bool [B, L], true where there is text.
          withheld: bool [B], whose image the decoder shall not be told: a learned embedding stands for it. None for
            nobody's.

        Returns:
          "tokens", [B, extra + L, features]; "token_mask", bool [B, extra + L]; "vector", [B, width].
        """
        null = self.param("null", nn.initializers.normal(1.0), image_embedding.shape[-1:], jnp.float32)
        if withheld is not None:
            image_embedding = jnp.where(withheld[:, None], null, image_embedding)
        vector = dense(self.width, self.dtype, "text")(text_embedding)
        vector += dense(self.width, self.dtype, "image")(image_embedding)
        # Published weights have the tokens of one feature side by side.
        seen = dense(self.extra * self.features, self.dtype, "extra")(image_embedding)
        seen = seen.reshape(-1, self.features, self.extra).swapaxes(1, 2)
        read = layer_norm(1e-5, self.dtype, "norm")(dense(self.features, self.dtype, "tokens")(tokens))
        mask = jnp.pad(token_mask, ((0, 0), (self.extra, 0)), constant_values=True)
        return {"tokens": jnp.concatenate([seen, read], axis=1), "token_mask": mask, "vector": vector}
