"""Noise levels as random Fourier features (Song et al. 2021, score_sde's NCSN++)."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.protocols import Activation


class FourierFeatures(nn.Module):
    """[sin(2 pi w f(t)), cos(2 pi w f(t))]: t [B] -> float32 [B, 2 features].

    w is drawn once and not trained.

    Attributes:
      scale: the standard deviation of w.
      of: f, the logarithm, of noise levels above 0.
    """

    scale: float = 16.0
    of: Activation = jnp.log

    @nn.compact
    def __call__(self, time: jax.Array, features: int) -> jax.Array:
        frequencies = self.param("weight", nn.initializers.normal(self.scale), (features,), jnp.float32)
        angles = self.of(time.astype(jnp.float32))[:, None] * jax.lax.stop_gradient(frequencies)[None] * 2 * math.pi
        return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)
