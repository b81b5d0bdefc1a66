"""Perceptrons as encoder and decoder: for vectors, and for small images as vectors."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.protocols import Activation
from diffusion_jax.models.blocks.layers import dense


def identity(h: jax.Array) -> jax.Array:
    """h."""
    return h


class Perceptron(nn.Module):
    """Dense layers, with an activation between them and none after the last.

    Attributes:
      features: of each layer, the last one's included.
      activation: between layers.
    """

    features: Sequence[int]
    activation: Activation = nn.swish

    @nn.compact
    def __call__(self, h: jax.Array) -> jax.Array:
        """float32 [B, features[-1]] of h [B, D]."""
        for number, features in enumerate(self.features):
            h = dense(features, jnp.float32, f"layer_{number}")(self.activation(h) if number else h)
        return h


class MLPAutoencoder(nn.Module):
    """An encoder and a decoder of x [B, *shape], whose hidden layers mirror each other.

    Its parameters are "encoder" and "decoder".

    Attributes:
      shape: of one x.
      codes: numbers of a code.
      hidden: features of the encoder's hidden layers; none makes both linear.
      says: numbers that the encoder says of each code: 2 for a mean and a logarithm of a variance.
      activation: between layers.
      code_activation: of what the encoder says, a sigmoid for sparse codes.
    """

    shape: Sequence[int]
    codes: int
    hidden: Sequence[int] = (256, 256)
    says: int = 1
    activation: Activation = nn.swish
    code_activation: Activation = identity

    def setup(self):
        self.encoder = Perceptron((*self.hidden, self.says * self.codes), self.activation)
        self.decoder = Perceptron((*reversed(self.hidden), math.prod(self.shape)), self.activation)

    def encode(self, x: jax.Array) -> jax.Array:
        """float32 [B, says * codes] of x [B, *shape]."""
        return self.code_activation(self.encoder(x.reshape(len(x), -1)))

    def decode(self, z: jax.Array) -> jax.Array:
        """float32 [B, *shape] of z [B, codes]."""
        return self.decoder(z).reshape(len(z), *self.shape)

    def __call__(self, x: jax.Array) -> jax.Array:
        """x by way of the first `codes` numbers that the encoder says."""
        return self.decode(self.encode(x)[:, : self.codes])
