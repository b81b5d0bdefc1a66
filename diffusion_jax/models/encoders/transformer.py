"""The transformer of CLIP's text and of its pictures (Radford et al. 2021, section 2.4)."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.protocols import Activation, Attend
from diffusion_jax.models.blocks.layers import dense
from diffusion_jax.models.ops.attention import by_xla, multi_head


def quick_gelu(h: jax.Array) -> jax.Array:
    """h sigmoid(1.702 h): that of OpenAI's weights."""
    return h * nn.sigmoid(1.702 * h)


def gelu(h: jax.Array) -> jax.Array:
    """h Phi(h), exact: that of OpenCLIP's weights."""
    return nn.gelu(h, approximate=False)


def layer_norm(epsilon: float, dtype: Any, name: str) -> nn.LayerNorm:
    """Layer normalisation with scale and bias; statistics are float32, the result is `dtype`."""
    return nn.LayerNorm(epsilon=epsilon, use_fast_variance=False, dtype=dtype, name=name)


class Block(nn.Module):
    """Pre-norm attention and perceptron, each with a residual: [B, L, C] -> [B, L, C] of `dtype`.

    x + out(attention(norm(x))), then likewise dense(activation(dense(norm(x)))).

    Attributes:
      hidden: features inside the perceptron.
      heads: of attention, a divisor of C.
      depth: blocks of the whole, by which what is added to x starts smaller (GPT-2's rule, as CLIP has it).
      activation: of the perceptron.
      epsilon: of normalisation.
      dtype: of dense layers and attention products; statistics of normalisation and softmax are float32.
    """

    hidden: int
    heads: int
    depth: int
    activation: Activation = quick_gelu
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, attend: Attend = by_xla) -> jax.Array:
        features = x.shape[-1]
        narrow = (2 * self.depth * features) ** -0.5
        h = layer_norm(self.epsilon, self.dtype, "norm_0")(x)
        query, key, value = (self._dense(features, features**-0.5, name)(h) for name in ("query", "key", "value"))
        x = x + self._dense(features, narrow, "out")(multi_head(query, key, value, self.heads, attend))
        h = layer_norm(self.epsilon, self.dtype, "norm_1")(x)
        h = self.activation(self._dense(self.hidden, (2 * features) ** -0.5, "mlp_0")(h))
        return x + self._dense(features, narrow, "mlp_1")(h)

    def _dense(self, features, std, name):
        return dense(features, self.dtype, name, nn.initializers.normal(std))


class Transformer(nn.Module):
    """Blocks one after the other: [B, L, C] -> the states, the input first, each [B, L, C] of `dtype`.

    Attributes: layers, the number of blocks; others as of `Block`.

    Raises:
      InputError: `heads` does not divide C.
    """

    layers: int
    hidden: int
    heads: int
    activation: Activation = quick_gelu
    epsilon: float = 1e-5
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, attend: Attend = by_xla) -> tuple[jax.Array, ...]:
        states = [x.astype(self.dtype)]
        parts = self.hidden, self.heads, self.layers, self.activation, self.epsilon, self.dtype
        for i in range(self.layers):
            states.append(Block(*parts, name=f"block_{i}")(states[-1], attend))
        return tuple(states)
