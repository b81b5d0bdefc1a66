"""What a network's numbers say: the law of a code, and the law of data given one."""

import jax
import jax.numpy as jnp

from diffusion_jax.core.distributions import Bernoulli, ContinuousBernoulli, Gaussian, Laplace
from diffusion_jax.core.protocols import OfParams, ReadCode, ReadData, Tree

# ---- Of codes, `numbers [B, ...] -> q(z | x)`.


def certain(numbers: jax.Array) -> Gaussian:
    """The code itself: no noise."""
    return Gaussian(numbers, 0.0)


def normal(numbers: jax.Array) -> Gaussian:
    """Means in the first half of the last axis, and logarithms of variances in the second."""
    mean, log_var = jnp.split(numbers, 2, axis=-1)
    return Gaussian(mean, jnp.exp(log_var))


def normal_within(least: float = -30.0, most: float = 20.0) -> ReadCode:
    """`normal`, whose logarithms of variances are cut to [`least`, `most`]: by default as in latent diffusion."""

    def read(numbers):
        mean, log_var = jnp.split(numbers, 2, axis=-1)
        return Gaussian(mean, jnp.exp(jnp.clip(log_var, least, most)))

    return read


# ---- Of data, `(params, numbers [B, ...]) -> p(x | z)`.


def gaussian(var: float) -> ReadData:
    """Means, with the variance `var`. Of 1/2 minus the log density is the squared error and log(pi) / 2 an entry."""
    return lambda params, numbers: Gaussian(numbers, jnp.full((), var, numbers.dtype))


def laplace(scale: float) -> ReadData:
    """Means, with the scale `scale`. Of 1 minus the log density is the absolute error and log(2) an entry."""
    return lambda params, numbers: Laplace(numbers, jnp.full((), scale, numbers.dtype))


def learned_gaussian(log_var: OfParams) -> ReadData:
    """Means, with one variance that is trained: the exponential of `log_var(params)`, a scalar.

    It ends on the mean squared error (Rybkin et al. 2021, section 3).
    """
    return lambda params, numbers: Gaussian(numbers, jnp.exp(log_var(params)))


def bernoulli(params: Tree, numbers: jax.Array) -> Bernoulli:
    """Log odds, of data that is 0 or 1."""
    return Bernoulli(numbers)


def continuous_bernoulli(params: Tree, numbers: jax.Array) -> ContinuousBernoulli:
    """Log odds, of data in [0, 1]."""
    return ContinuousBernoulli(numbers)
