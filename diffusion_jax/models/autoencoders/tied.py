"""One layer each way with the same weights: k-sparse and contractive autoencoders."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.protocols import Activation
from diffusion_jax.models.blocks.layers import default_init


class TiedAutoencoder(nn.Module):
    """h = activation(x W + b), and back h W' + c (Vincent et al. 2010, section 2.2).

    Its parameters are "encoder", W as "kernel" [D, units] and b as "bias", and "decoder", c as "bias".

    Attributes:
      shape: of one x, D entries.
      units: numbers of a code.
      activation: of the code.
    """

    shape: Sequence[int]
    units: int
    activation: Activation = nn.sigmoid

    def setup(self):
        self.encoder = _Layer(math.prod(self.shape), self.units)
        self.decoder = _Shift(math.prod(self.shape))

    def encode(self, x: jax.Array) -> jax.Array:
        """float32 [B, units] of x [B, *shape]."""
        return self.activation(self.encoder(x.reshape(len(x), -1)))

    def decode(self, z: jax.Array) -> jax.Array:
        """float32 [B, *shape] of z [B, units]."""
        return self.decoder(self.encoder.back(z)).reshape(len(z), *self.shape)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x by way of its code."""
        return self.decode(self.encode(x))


class _Layer(nn.Module):
    inputs: int
    units: int

    def setup(self):
        self.kernel = self.param("kernel", default_init, (self.inputs, self.units), jnp.float32)
        self.bias = self.param("bias", nn.initializers.zeros_init(), (self.units,), jnp.float32)

    def __call__(self, x: jax.Array) -> jax.Array:
        return x @ self.kernel + self.bias

    def back(self, z: jax.Array) -> jax.Array:
        return z @ self.kernel.T


class _Shift(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x):
        return x + self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
