"""Networks of TD-VAE (Gregor et al. 2019, appendix): a recurrent belief, and the laws of states in layers.

A state is a tuple of arrays [B, size], its layers, the highest first. The methods of `Recurrent` that stand for laws
are given the layers above, and return the distribution of the next: the same order in all laws.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.distributions import Bernoulli, Gaussian


class DBlock(nn.Module):
    """The paper's D: tanh(A x) sigmoid(B x), and of that the mean and the log of the deviation of a Gaussian.

    Attributes:
      hidden: features of A x and B x.
      features: entries of the Gaussian.
    """

    hidden: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> Gaussian:
        """[B, D] -> a Gaussian whose arrays are [B, features]."""
        gate = nn.sigmoid(nn.Dense(self.hidden, name="gate")(x))
        h = nn.tanh(nn.Dense(self.hidden, name="value")(x)) * gate
        log_std = nn.Dense(self.features, name="log_std")(h)
        return Gaussian(nn.Dense(self.features, name="mean")(h), jnp.exp(2 * log_std))


class Perceptron(nn.Module):
    """Dense layers, each followed by `activation`: [..., D] -> [..., last of `sizes`]; none returns x itself."""

    sizes: Sequence[int]
    activation: Any = nn.relu

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for number, size in enumerate(self.sizes):
            x = self.activation(nn.Dense(size, name=f"layer_{number}")(x))
        return x


class BernoulliDecoder(nn.Module):
    """A perceptron of tanh from a state to pixels that are 0 or 1.

    Attributes:
      sizes: of its hidden layers.
      shape: of an image.
    """

    sizes: Sequence[int]
    shape: Sequence[int]

    @nn.compact
    def __call__(self, z: jax.Array) -> Bernoulli:
        """[B, size of a state] -> `Bernoulli` of [B, *shape]."""
        h = Perceptron(self.sizes, nn.tanh, name="hidden")(z)
        return Bernoulli(nn.DenseGeneral(tuple(self.shape), name="logits")(h))


class GaussianDecoder(nn.Module):
    """A perceptron of tanh from a state to numbers, each with a variance of its own that is learned for all states.

    Attributes: as of `BernoulliDecoder`.
    """

    sizes: Sequence[int]
    shape: Sequence[int]

    @nn.compact
    def __call__(self, z: jax.Array) -> Gaussian:
        """[B, size of a state] -> `Gaussian` of [B, *shape]."""
        h = Perceptron(self.sizes, nn.tanh, name="hidden")(z)
        mean = nn.DenseGeneral(tuple(self.shape), name="mean")(h)
        log_std = self.param("log_std", nn.initializers.zeros, tuple(self.shape))
        return Gaussian(mean, jnp.broadcast_to(jnp.exp(2 * log_std), mean.shape))


class Recurrent(nn.Module):
    """All networks of TD-VAE, a method each. Everything is computed in float32.

    p_S is not told the belief at t2: the best p_S is in proportion to p_B(z1 | b1) p_T(z2 | z1), and needs none. p_T
    and p_S are told the length of the jump.

    Attributes:
      cell: of the recurrent network, `nn.OptimizedLSTMCell(50)` or `nn.GRUCell(32)`; its output is the belief.
      decoder: from a state, [B, sum of `layers`], to a distribution (`BernoulliDecoder`).
      layers: entries of each layer of a state, the highest first.
      hidden: features of the D blocks.
      seen: sizes of the dense layers that see an entry of the sequence, before the cell does.
      longest: the longest jump.
    """

    cell: nn.RNNCellBase
    decoder: nn.Module
    layers: Sequence[int] = (8, 8)
    hidden: int = 50
    seen: Sequence[int] = (784, 784)
    longest: int = 4

    def setup(self):
        self.see = Perceptron(self.seen)
        self.memory = nn.RNN(self.cell)
        self.beliefs = [DBlock(self.hidden, size) for size in self.layers]
        self.smoothings = [DBlock(self.hidden, size) for size in self.layers]
        self.transitions = [DBlock(self.hidden, size) for size in self.layers]

    def summary(self, x: jax.Array) -> jax.Array:
        """Beliefs of a sequence: float32 [B, T, ...] -> [B, T + 1, features]; entry t sees the first t entries."""
        b = self.memory(self.see(x.reshape(*x.shape[:2], math.prod(x.shape[2:]))))
        return jnp.pad(b, ((0, 0), (1, 0), (0, 0)))  # the cells start from zeros, too

    def belief(self, above: tuple[jax.Array, ...], b: jax.Array) -> Gaussian:
        """p_B(z | b) of the layer below `above`; b is [B, features]."""
        return self.beliefs[len(above)](_joined(*above, b))

    def smoothing(self, above: tuple[jax.Array, ...], z2: tuple, b1: jax.Array, jump: jax.Array) -> Gaussian:
        """p_S(z1 | z2, b1) of the layer below `above`; `jump` is int [B], 1 to `longest`."""
        return self.smoothings[len(above)](_joined(*above, *z2, b1, self._told(jump)))

    def transition(self, above: tuple[jax.Array, ...], z1: tuple, jump: jax.Array) -> Gaussian:
        """p_T(z2 | z1) of the layer below `above`; `jump` as of `smoothing`."""
        return self.transitions[len(above)](_joined(*above, *z1, self._told(jump)))

    def decode(self, z: tuple[jax.Array, ...]) -> Any:
        """p_D(x | z)."""
        return self.decoder(_joined(*z))

    def __call__(self, x: jax.Array) -> Any:
        """Runs each network once, for its parameters: x is [B, T, ...]; returns p_D of the last entry."""
        b, jump = self.summary(x)[:, -1], jnp.ones(len(x), jnp.int32)
        z: tuple[jax.Array, ...] = ()
        for _ in self.layers:
            z = (*z, self.belief(z, b).mean)
        for n in range(len(z)):
            self.smoothing(z[:n], z, b, jump)
            self.transition(z[:n], z, jump)
        return self.decode(z)

    def _told(self, jump):
        return jax.nn.one_hot(jump - 1, self.longest)


def _joined(*parts):
    return jnp.concatenate(parts, axis=-1)
