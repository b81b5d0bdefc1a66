"""Data of two modes in one dimension: its denoiser, and its flow, which keeps quantiles, are known."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.distributions import Gaussian

WEIGHTS, CENTRES, WIDTH = np.array([0.8, 0.2]), np.array([-1.0, 1.5]), 0.3


def modes(schedule, t):
    """Centres and width of the two modes at t."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha * CENTRES, np.sqrt(alpha**2 * WIDTH**2 + sigma**2)


def two_modes(schedule, weights=WEIGHTS):
    def denoise(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        total = alpha**2 * WIDTH**2 + sigma**2
        gap = x[..., None] - alpha * CENTRES
        share = jax.nn.softmax(jnp.log(weights) - gap**2 / (2 * total))
        return Gaussian(jnp.sum(share * (CENTRES + alpha * WIDTH**2 / total * gap), axis=-1))

    return denoise


def quantile_map(schedule, x, t, s):
    """Where the flow takes `x` from t to s, by bisection on the distribution functions."""

    def below(x, at):
        centres, width = modes(schedule, at)
        return (WEIGHTS * jax.scipy.stats.norm.cdf(x[..., None], centres, width)).sum(-1)

    wanted = below(x, t)
    low, high = np.full(x.shape, -10.0), np.full(x.shape, 10.0)
    for _ in range(60):
        middle = (low + high) / 2
        under = below(middle, s) < wanted
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    return (low + high) / 2
