"""A U-Net that is told the embedding of a picture and a text: unCLIP's decoder (Ramesh et al. 2022, section 2.1)."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.models.blocks.conditioning import check_names
from diffusion_jax.models.encoders.text_projection import TextProjection

HEARD = ("image_embedding", "text_embedding", "tokens", "token_mask")


class OfEmbeddings(nn.Module):
    """`network`, told what `project` makes of two embeddings and an encoded text, both trained together.

    Attributes:
      project: makes "tokens", "token_mask" and "vector" of them.
      network: hears these three, such as an `AddedKeyUNet` with `embed={"vector": GivenEmbedding()}`.
    """

    project: TextProjection
    network: nn.Module

    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array],
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """The network's output for x.

        Args:
          x, time, dropout_keys: as the network takes them.
          cond: "image_embedding" [B, E], of which one with NaN says nothing; "text_embedding" [B, E']; "tokens",
            [B, L, D]; "token_mask", bool [B, L].

        Raises:
          InputError: a condition is missing or unknown.
        """
        check_names(cond, HEARD)
        picture = cond["image_embedding"]
        withheld = ~jnp.isfinite(picture).all(axis=-1)
        seen = jnp.where(withheld[:, None], 0.0, picture)
        told = self.project(seen, cond["text_embedding"], cond["tokens"], cond["token_mask"], withheld)
        return self.network(x, time, told, dropout_keys)
