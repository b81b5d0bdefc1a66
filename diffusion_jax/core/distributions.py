"""What is believed of data: the estimates p(x0 | x_t) and the kernels p(x_s | x_t).

A distribution is a NamedTuple of arrays, hence a pytree, with `sample(key)` and `log_prob(x)`.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Kernel, Tree


class Gaussian(NamedTuple):
    """Independent normal entries; `var` broadcasts against `mean`, and zero variance is a point mass.

    Attributes:
      mean: float array, any shape.
      var: float array of a shape that broadcasts to that of `mean`, or a number; >= 0.
    """

    mean: jax.Array
    var: jax.Array | float = 0.0

    @property
    def std(self):
        # sqrt has an infinite slope at 0, which would turn gradients through a point mass into NaN.
        positive = jnp.asarray(self.var) > 0
        return jnp.where(positive, jnp.sqrt(jnp.where(positive, self.var, 1.0)), 0.0)

    def sample(self, key: jax.Array) -> jax.Array:
        """One draw, of the shape and dtype of `mean`."""
        noise = rng.flat(jax.random.normal, key, self.mean.shape, self.mean.dtype)
        return (self.mean + self.std * noise).astype(self.mean.dtype)

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Log density of each entry, in nats; `var` must be positive."""
        return -0.5 * (jnp.log(2 * jnp.pi * self.var) + (x - self.mean) ** 2 / self.var)

    def kl(self, other: "Gaussian") -> jax.Array:
        """KL(self || other) of each entry, in nats; both variances must be positive."""
        ratio = jnp.asarray(self.var / other.var)
        return 0.5 * (ratio - 1 - jnp.log(ratio) + (self.mean - other.mean) ** 2 / other.var)

    def spread(self, var: Any, gain: Any) -> jax.Array:
        """Variance of noise of variance `var` plus `gain` times this."""
        return var + gain**2 * self.var

    def guided(self, other: "Gaussian", scale: Any) -> "Gaussian":
        """other.mean + scale (mean - other.mean), with this variance; `scale` as `along` takes it for the mean."""
        return self._replace(mean=_extrapolate(self.mean, other.mean, scale))


class Interpolated(NamedTuple):
    """A mean, and a variance that is known only when a step is taken (Improved DDPM, equation 15).

    The kernel's variance lies between that of a certain x0 and that of an x0 of variance `widest`, at `fraction` of
    the way in its logarithm.

    Attributes:
      mean: float array, any shape.
      fraction: of the same shape; within [0, 1], though nothing keeps a network there.
      widest: array that broadcasts to that shape; > 0.
      narrowest: no kernel is thinner at fraction 0; > 0, for the step to s = 0.
    """

    mean: jax.Array
    fraction: jax.Array
    widest: jax.Array
    narrowest: jax.Array | float

    def spread(self, var: Any, gain: Any) -> jax.Array:
        """Variance of noise of variance `var` plus `gain` times this."""
        small, large = jnp.log(jnp.maximum(var, self.narrowest)), jnp.log(var + gain**2 * self.widest)
        return jnp.exp(small + self.fraction * (large - small))

    def guided(self, other: "Interpolated", scale: Any) -> "Interpolated":
        """As `Gaussian.guided`: the learned variance is this one's, not guided (Dhariwal & Nichol's code; DiT's)."""
        return self._replace(mean=_extrapolate(self.mean, other.mean, scale))


class Laplace(NamedTuple):
    """Independent entries of density exp(-|x - mean| / scale) / (2 scale).

    Attributes:
      mean: float array, any shape.
      scale: float array of a shape that broadcasts to that of `mean`, or a number; > 0.
    """

    mean: jax.Array
    scale: jax.Array | float = 1.0

    def sample(self, key: jax.Array) -> jax.Array:
        """One draw, of the shape and dtype of `mean`."""
        noise = rng.flat(jax.random.laplace, key, self.mean.shape, self.mean.dtype)
        return (self.mean + self.scale * noise).astype(self.mean.dtype)

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Log density of each entry, in nats."""
        return -jnp.abs(x - self.mean) / self.scale - jnp.log(2 * self.scale)


class Bernoulli(NamedTuple):
    """Independent entries that are 1 with probability sigmoid(logits), else 0.

    Attributes:
      logits: float array, any shape.
    """

    logits: jax.Array

    @property
    def mean(self) -> jax.Array:
        return jax.nn.sigmoid(self.logits)

    def sample(self, key: jax.Array) -> jax.Array:
        """One draw, 0 and 1 in the dtype of `logits`."""
        u = rng.flat(jax.random.uniform, key, self.logits.shape, self.logits.dtype)
        return (u < self.mean).astype(self.logits.dtype)

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Log probability of each entry of `x`, 0 or 1, in nats."""
        return x * jax.nn.log_sigmoid(self.logits) + (1 - x) * jax.nn.log_sigmoid(-self.logits)


class ContinuousBernoulli(NamedTuple):
    """Independent entries in [0, 1], of density C l^x (1 - l)^(1 - x), l = sigmoid(logits): for levels of grey.

    Without C = 2 artanh(1 - 2 l) / (1 - 2 l) = logits / tanh(logits / 2) it is no density (Loaiza-Ganem & Cunningham
    2019, equation 7).

    Attributes:
      logits: float array, any shape.
    """

    logits: jax.Array

    @property
    def mean(self) -> jax.Array:
        """1 / (1 - exp(-logits)) - 1 / logits, by its series where logits are small."""
        size = jnp.abs(self.logits)
        small = size < 0.1
        away = jnp.where(small, 1.0, size)
        series = 0.5 + self.logits / 12 - self.logits**3 / 720
        # Of -|logits|, whose exponential cannot overflow, not even in a gradient; the mean of +|logits| is 1 less it.
        low = 1 / away + jnp.exp(-away) / jnp.expm1(-away)
        return jnp.where(small, series, jnp.where(self.logits < 0, low, 1 - low))

    def sample(self, key: jax.Array) -> jax.Array:
        """One draw, by the inverse of the distribution function log(1 + u (exp(logits) - 1)) / logits."""
        u = rng.flat(jax.random.uniform, key, self.logits.shape, self.logits.dtype)
        small = jnp.abs(self.logits) < 1e-3
        # Of -|logits|, whose exponential cannot overflow; the draw of +|logits| is 1 less it.
        falling = -jnp.where(small, 1.0, jnp.abs(self.logits))
        x = jnp.log1p(u * jnp.expm1(falling)) / falling
        x = jnp.where(small, u, jnp.where(self.logits > 0, 1 - x, x))
        return jnp.clip(x, 0.0, 1.0)

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Log density of each entry of `x`, in [0, 1], in nats."""
        size = jnp.abs(self.logits)
        small = size < 0.1
        away = jnp.where(small, 1.0, size)
        # log(2 artanh(t) / t) with t = tanh(size / 2), hence log(size / t).
        log_constant = jnp.where(
            small, np.log(2) + size**2 / 12 - 7 * size**4 / 1440, jnp.log(away) - jnp.log(jnp.tanh(away / 2))
        )
        return Bernoulli(self.logits).log_prob(x) + log_constant


class Categorical(NamedTuple):
    """Independent tokens; `logits` are log probabilities up to a constant, -inf where there is none.

    Attributes:
      logits: float array [..., K].
    """

    logits: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """One draw, int32 [...].

        Gumbel noise of the "high" mode: the usual 24 random bits cut its tail off, which cools the law of tokens
        that are revealed rarely (Zheng et al. 2024, "Masked diffusion models are secretly time-agnostic").
        """
        noise = rng.flat(jax.random.gumbel, key, self.logits.shape, self.logits.dtype, "high")
        return jnp.argmax(self.logits + noise, axis=-1).astype(jnp.int32)

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Log probability of each token of `x` [...], in nats."""
        return jnp.take_along_axis(jax.nn.log_softmax(self.logits), x[..., None], axis=-1)[..., 0]

    def kl(self, other: "Categorical") -> jax.Array:
        """KL(self || other) of each token [...], in nats."""
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        possible = jnp.isfinite(log_p)
        gap = log_p - jnp.where(possible, log_q, 0.0)
        return jnp.sum(jnp.where(possible, jnp.exp(log_p) * gap, 0.0), axis=-1)

    def guided(self, other: "Categorical", scale: Any) -> "Categorical":
        """The law in proportion to p^scale q^(1 - scale), p this law and q the other; `scale` for tokens [...].

        Where p has none the result has none (scale 0 excepted, which is q). Where q alone has none, p stands for it
        if scale >= 1, for p^scale q^(1 - scale) is infinite there; below, the result has none.
        """
        log_p, log_q = jax.nn.log_softmax(self.logits), jax.nn.log_softmax(other.logits)
        scale = along(scale, log_p.shape[:-1])[..., None]
        gap = jnp.where(jnp.isfinite(log_p) & jnp.isfinite(log_q), log_p - log_q, 0.0)
        mixed = jnp.where(jnp.isfinite(log_q) | (scale >= 1), log_p + (scale - 1) * gap, -jnp.inf)
        return Categorical(jnp.where(scale == 0, log_q, mixed).astype(log_p.dtype))


def certain(x: jax.Array, vocab: int) -> Categorical:
    """The law that is sure of the tokens `x` [...]."""
    return Categorical(safe_log(jax.nn.one_hot(x, vocab)))


def safe_log(p: jax.Array) -> jax.Array:
    """log p; -inf at p = 0, where its gradient is 0 and not NaN."""
    positive = p > 0
    return jnp.where(positive, jnp.log(jnp.where(positive, p, 1.0)), -jnp.inf)


def draw(kernel: Kernel, keys: jax.Array) -> Tree:
    """One sample an example: `keys` [B] against the leading axis of every array in `kernel`."""
    return jax.vmap(lambda k, key: k.sample(key))(kernel, keys)


def along(scale: Any, shape: Sequence[int]) -> jax.Array:
    """`scale` as it broadcasts to `shape` = [B, ...]: a number, [B], or an array of as many axes that broadcasts.

    Raises:
      InputError: for any other shape.
    """
    scale = jnp.asarray(scale)
    axes = scale.shape + (1,) * (len(shape) - 1) if scale.ndim == 1 else scale.shape
    if axes and (len(axes) != len(shape) or any(a not in (1, b) for a, b in zip(axes, shape, strict=True))):
        raise InputError(
            f"a scale for {list(shape)} is a number, [{shape[0]}], or has {len(shape)} axes that broadcast to it, "
            f"not {list(scale.shape)}"
        )
    return scale.reshape(axes)


def _extrapolate(x, other, scale):
    """other + scale (x - other), in the form that gives x to the last bit for scale 1."""
    return (x + (along(scale, x.shape) - 1) * (x - other)).astype(x.dtype)


def mean_over_entries(x: jax.Array) -> jax.Array:
    """[B, ...] -> [B]: the mean over all but the leading axis."""
    return x.reshape(x.shape[0], -1).mean(axis=1)
