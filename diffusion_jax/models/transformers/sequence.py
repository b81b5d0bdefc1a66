"""A transformer for tokens, with DiT's way of telling it the time (Peebles and Xie 2023, section 3.2)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.blocks.conditioning import check_names, conditions_of, embedded
from diffusion_jax.models.blocks.layers import Convolution, TimeEmbedding, default_init, dense, zero_init
from diffusion_jax.models.ops import products
from diffusion_jax.models.transformers.transformer import TransformerBlock, layer_norm, modulations

NEIGHBOURS = 7  # tokens that the first convolution sees, itself and three on either side


class SequenceTransformer(nn.Module):
    """A bidirectional transformer over tokens: what it says of each token it may read off all the others.

    Positions are a learned table. Tokens may be text or the pixels of an image in reading order, and a table
    learns either geometry; a sinusoid of the index would tell columns, but hardly rows. The price: parameters
    serve the number of tokens they were made with. Such a table is slow to learn what stands beside what: with
    attention alone a thousand steps on text taught how often letters occur and no more. So a convolution over
    neighbouring tokens comes first.

    Attributes:
      vocab: tokens are 0 to vocab - 1, a mask among them where the process has one.
      features: width, a multiple of `heads`, even and at least 4.
      layers: number of blocks.
      heads: heads of attention. Memory grows with heads * (number of tokens)^2.
      dropout: rate in [0, 1) at the end of every residual branch; active only when keys are given.
      embed: name of a condition -> module that makes a vector of it, added to the time embedding (`conditioning`).
      dtype: of dense layers and attention products. Parameters, statistics of normalisation, softmax, time
        embedding, last layer and result are float32 whatever it is.
    """

    vocab: int
    features: int = 128
    layers: int = 4
    heads: int = 4
    dropout: float = 0.0
    embed: Mapping[str, nn.Module] = dataclasses.field(default_factory=dict)
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        time: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        dropout_keys: jax.Array | None = None,
    ) -> jax.Array:
        """Logits of every token.

        Args:
          x: integer [B, ...], such as [B, L] or [B, H, W, C]. A token beyond the vocabulary makes its example NaN.
          time: [B], integer or float, from 0 to 1000.
          cond: what the network is told, with exactly the names in `embed`.
          dropout_keys: None for evaluation, or one typed threefry key an example, [B]. The masks of an
            example depend only on its own key.

        Returns:
          float32 [B, ..., vocab], all but 0 at first.

        Raises:
          InputError: `heads` does not divide `features`, `features` is odd or below 4, a condition is missing or
            unknown, or the dropout's rate or keys are unfit.
        """
        if self.features % self.heads:
            raise InputError(
                f"{self.features} features do not divide into {self.heads} heads; "
                f"take features as a multiple of {self.heads}, or other heads"
            )
        tokens = x.reshape(x.shape[0], -1)
        check_names(cond, conditions_of(self.embed))
        embedding = TimeEmbedding(self.features, name="time_embedding")(time)
        embedding = embedding + embedded(self.embed, cond, 4 * self.features)
        # Of unit size, like the branches that are added to them. At the usual 0.02, 300 steps on text had learned
        # little more than how often letters occur (3.12 nats a hidden letter, against 2.25).
        unit = nn.initializers.normal(1.0)
        h = nn.Embed(self.vocab, self.features, embedding_init=unit, name="tokens")(tokens)
        h = h + self.param("positions", unit, (tokens.shape[1], self.features), jnp.float32)[None]
        h = h.astype(self.dtype)
        beside = Convolution(
            self.features, self.dtype, products.of_neighbours, default_init, (NEIGHBOURS,), name="neighbours"
        )
        h = h + beside(h)
        for i in range(self.layers):
            h = TransformerBlock(self.heads, self.dropout, self.dtype, name=f"block_{i}")(h, embedding, dropout_keys)
        shift, scale = modulations(embedding, 2, self.features, jnp.float32, "output_modulation")
        h = layer_norm(h, jnp.float32) * (1 + scale) + shift
        logits = dense(self.vocab, jnp.float32, "output", kernel_init=zero_init)(h)
        return logits.reshape(*x.shape, self.vocab)
