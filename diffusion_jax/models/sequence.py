"""A transformer for tokens, with DiT's way of telling it the time (Peebles and Xie 2023, section 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.errors import InputError
from diffusion_jax.models.layers import Dropout, TimeEmbedding, default_init, dense, zero_init

# Exactly zero, as in DiT: with no gate open, the network starts as its embedding and its last layer.
closed = nn.initializers.zeros_init()


def layer_norm(x: jax.Array, dtype) -> jax.Array:
    """Layer normalisation without parameters (adaLN brings its own); statistics in float32, as `group_norm`'s."""
    norm = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, use_fast_variance=False, dtype=dtype)
    return norm(x)


def modulations(condition: jax.Array, num: int, features: int, dtype, name: str) -> tuple[jax.Array, ...]:
    """`num` vectors [B, 1, features] that are linear in swish(condition) and start at 0."""
    vectors = dense(num * features, dtype, name, kernel_init=closed)(nn.swish(condition))
    return tuple(jnp.split(vectors[:, None, :], num, axis=-1))


class TransformerBlock(nn.Module):
    """Pre-norm attention and perceptron under adaLN-Zero: [B, L, C] -> [B, L, C] of `dtype`.

    x + gate * attention(norm(x) * (1 + scale) + shift), then likewise with dense, tanh-GELU, dense of width 4 C.
    The two triples of shift, scale and gate come from the time embedding, and start at 0: so does each branch.
    Every token attends to every token. Dropout acts on the end of each branch.

    Call with x, embedding [B, E] and dropout keys ([B] or None, see `layers.Dropout`).
    """

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, embedding: jax.Array, dropout_keys: jax.Array | None = None
    ) -> jax.Array:
        batch, length, features = x.shape
        shift_0, scale_0, gate_0, shift_1, scale_1, gate_1 = modulations(
            embedding, 6, features, self.dtype, "modulation"
        )
        h = layer_norm(x, self.dtype) * (1 + scale_0) + shift_0
        query, key, value = (
            dense(features, self.dtype, name)(h).reshape(batch, length, self.heads, -1)
            for name in ("query", "key", "value")
        )
        h = jax.nn.dot_product_attention(query, key, value).reshape(x.shape)  # softmax in float32
        h = dense(features, self.dtype, "out")(h)
        x = x + gate_0 * Dropout(self.dropout, name="attention_dropout")(h, dropout_keys)

        h = layer_norm(x, self.dtype) * (1 + scale_1) + shift_1
        h = nn.gelu(dense(4 * features, self.dtype, "mlp_0")(h), approximate=True)
        h = dense(features, self.dtype, "mlp_1")(h)
        return x + gate_1 * Dropout(self.dropout, name="mlp_dropout")(h, dropout_keys)


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
      dtype: of dense layers and attention products. Parameters, statistics of normalisation, softmax, time
        embedding, last layer and result are float32 whatever it is.
    """

    vocab: int
    features: int = 128
    layers: int = 4
    heads: int = 4
    dropout: float = 0.0
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, time: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
        """Logits of every token.

        Args:
          x: integer [B, ...], such as [B, L] or [B, H, W, C]. A token beyond the vocabulary makes its example NaN.
          time: [B], integer or float, from 0 to 1000.
          dropout_keys: None for evaluation, or one typed threefry key an example, [B]. The masks of an
            example depend only on its own key.

        Returns:
          float32 [B, ..., vocab], all but 0 at first.

        Raises:
          InputError: `heads` does not divide `features`, `features` is odd or below 4, or the dropout's rate or
            keys are unfit.
        """
        if self.features % self.heads:
            raise InputError(
                f"{self.features} features do not divide into {self.heads} heads; "
                f"take features as a multiple of {self.heads}, or other heads"
            )
        tokens = x.reshape(x.shape[0], -1)
        embedding = TimeEmbedding(self.features, name="time_embedding")(time)
        # Of unit size, like the branches that are added to them. At the usual 0.02, 300 steps on text had learned
        # little more than how often letters occur (3.12 nats a hidden letter, against 2.25).
        unit = nn.initializers.normal(1.0)
        h = nn.Embed(self.vocab, self.features, embedding_init=unit, name="tokens")(tokens)
        h = h + self.param("positions", unit, (tokens.shape[1], self.features))
        h = h.astype(self.dtype)
        beside = nn.Conv(self.features, (NEIGHBOURS,), dtype=self.dtype, kernel_init=default_init, name="neighbours")
        h = h + beside(h)
        for i in range(self.layers):
            h = TransformerBlock(self.heads, self.dropout, self.dtype, name=f"block_{i}")(h, embedding, dropout_keys)
        shift, scale = modulations(embedding, 2, self.features, jnp.float32, "output_modulation")
        h = layer_norm(h, jnp.float32) * (1 + scale) + shift
        logits = dense(self.vocab, jnp.float32, "output", kernel_init=zero_init)(h)
        return logits.reshape(*x.shape, self.vocab)
