"""Noise levels as random Fourier features (Song et al. 2021, score_sde's NCSN++)."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn


class FourierFeatures(nn.Module):
    """[sin(2 pi w log t), cos(2 pi w log t)]: t > 0, [B] -> float32 [B, 2 features].

    w is drawn once and not trained.

    Attributes:
      scale: the standard deviation of w.
    """

    scale: float = 16.0

    @nn.compact
    def __call__(self, time: jax.Array, features: int) -> jax.Array:
        frequencies = self.param("weight", nn.initializers.normal(self.scale), (features,), jnp.float32)
        angles = jnp.log(time.astype(jnp.float32))[:, None] * jax.lax.stop_gradient(frequencies)[None] * 2 * math.pi
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
