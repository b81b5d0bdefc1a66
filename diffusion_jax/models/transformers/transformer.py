"""What transformers for diffusion share: blocks that hear the time through adaLN-Zero (Peebles and Xie 2023, 3.2)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.protocols import Attend
from diffusion_jax.models.blocks.layers import Dropout, default_init, dense
from diffusion_jax.models.ops.attention import by_xla, multi_head

# Exactly zero, as in DiT: with no gate open, the network starts as its embedding and its last layer.
closed = nn.initializers.zeros_init()


def layer_norm(x: jax.Array, dtype: Any) -> jax.Array:
    """Layer normalisation without parameters (adaLN brings its own); statistics in float32, as `group_norm`'s."""
    norm = nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, use_fast_variance=False, dtype=dtype)
    return norm(x)


def modulations(condition: jax.Array, num: int, features: int, dtype: Any, name: str) -> tuple[jax.Array, ...]:
    """`num` vectors [B, 1, features] that are linear in swish(condition) and start at 0."""
    vectors = dense(num * features, dtype, name, kernel_init=closed)(nn.swish(condition))
    return tuple(jnp.split(vectors[:, None, :], num, axis=-1))


class TransformerBlock(nn.Module):
    """Pre-norm attention and perceptron under adaLN-Zero: [B, L, C] -> [B, L, C] of `dtype`.

    x + gate * attention(norm(x) * (1 + scale) + shift), then likewise with dense, tanh-GELU, dense of width 4 C.
    The two triples of shift, scale and gate come from the embedding, and start at 0: so does each branch.
    Every token attends to every token. Dropout acts on the end of each branch.

    Call with x, embedding [B, E] and dropout keys ([B] or None, see `layers.Dropout`).

    Attributes:
      heads: heads of attention, a divisor of C.
      dropout: rate in [0, 1).
      dtype: of dense layers and attention products; statistics of normalisation and softmax are float32.
      query_init: of the kernels of query, key and value.
      attend: what attention is computed by (`attention.multi_head`).
    """

    heads: int
    dropout: float = 0.0
    dtype: Any = jnp.float32
    query_init: nn.initializers.Initializer = default_init
    attend: Attend = by_xla

    @nn.compact
    def __call__(self, x: jax.Array, embedding: jax.Array, dropout_keys: jax.Array | None = None) -> jax.Array:
        features = x.shape[-1]
        shift_0, scale_0, gate_0, shift_1, scale_1, gate_1 = modulations(
            embedding, 6, features, self.dtype, "modulation"
        )
        h = layer_norm(x, self.dtype) * (1 + scale_0) + shift_0
        names = ("query", "key", "value")
        query, key, value = (dense(features, self.dtype, name, self.query_init)(h) for name in names)
        h = dense(features, self.dtype, "out")(multi_head(query, key, value, self.heads, self.attend))
        x = x + gate_0 * Dropout(self.dropout, name="attention_dropout")(h, dropout_keys)

        h = layer_norm(x, self.dtype) * (1 + scale_1) + shift_1
        h = nn.gelu(dense(4 * features, self.dtype, "mlp_0")(h), approximate=True)
        h = dense(features, self.dtype, "mlp_1")(h)
        return x + gate_1 * Dropout(self.dropout, name="mlp_dropout")(h, dropout_keys)
