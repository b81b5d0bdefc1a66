"""Gaussian noise: DDPM, DDIM and re-noising are one bridge with three amounts of fresh noise."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand, namespace
from diffusion_jax.core.distributions import Gaussian, Interpolated
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Refresh, Time
from diffusion_jax.diffusion.gaussian import q_sample, refreshed
from diffusion_jax.diffusion.processes.core import Process, check_interval
from diffusion_jax.diffusion.schedules import Schedule


def gaussian(schedule: Schedule, refresh: Refresh = refreshed) -> Process:
    """x_t = alpha_t x0 + sigma_t eps, undone with a share `refresh(schedule, t, s)` of fresh noise.

    With kappa the share, the kernel is normal with

        mean = a x_t + b x0_hat,                a = sqrt(1 - kappa) sigma_s / sigma_t,
        var  = kappa sigma_s^2 + b^2 var_hat,   b = alpha_s - a alpha_t,

    where (x0_hat, var_hat) is the estimate (an `Interpolated` one has its own rule for the variance). `refreshed`
    (the default) gives DDPM's posterior (Ho et al. 2020, equations 6 and 7), `ddim(eta)` equation 12 of DDIM (Song
    et al. 2021).
    All keep the marginals: x_t ~ q(x_t | x0) becomes x_s ~ q(x_s | x0).

    The prior at t is N(0, alpha_t^2 + sigma_t^2): the marginal of data with zero mean and unit variance, which is
    exactly N(0, 1) for variance-preserving schedules.
    """

    def corrupt(key, x0, t):
        eps = rng.flat(jax.random.normal, key, x0.shape, x0.dtype)
        return q_sample(schedule, x0, t, eps), eps

    def bridge(t, s):
        check_interval(t, s)
        return Partial(_correct, coefficients(schedule, refresh, t, s))

    def prior(key, shape, t=1.0):
        scale = float(np.hypot(schedule.alpha(t), schedule.sigma(t)))
        return scale * rng.flat(jax.random.normal, key, shape)

    return Process(corrupt, bridge, prior)


def ddim(eta: float) -> Refresh:
    """DDIM's share of fresh noise, eta^2 tau: eta = 0 is deterministic, eta = 1 is DDPM's posterior.

    (Song et al. 2021, equation 16: sigma = eta sqrt(posterior variance).) 0 <= eta <= 1.
    """
    if not 0 <= eta <= 1:
        raise InputError(f"eta must lie in [0, 1], not {eta}")
    return lambda schedule, t, s: eta**2 * refreshed(schedule, t, s)


def renoise(schedule: Schedule, t: Time, s: Time) -> Any:
    """All of the noise is fresh: x_s ~ q(x_s | x0_hat), as in consistency models' sampling."""
    return namespace(t).ones_like(t)


class Coefficients(NamedTuple):
    """x_s = x_t x_t + x0 x0_hat + sqrt(var) z: scalars of one step, or arrays [N] over a grid."""

    x_t: jax.Array
    x0: jax.Array
    var: jax.Array


def coefficients(schedule: Schedule, refresh: Refresh, t: Time, s: Time) -> Coefficients:
    """a, b and kappa sigma_s^2 of `gaussian`, of the shape of the schedule's values at t and s."""
    kappa = refresh(schedule, t, s)
    keep = namespace(t).sqrt(1 - kappa) * schedule.sigma(s) / schedule.sigma(t)
    return Coefficients(
        x_t=keep,
        x0=schedule.alpha(s) - keep * schedule.alpha(t),
        var=kappa * schedule.sigma(s) ** 2,
    )


def _correct(coefficient: Coefficients, estimate: Gaussian | Interpolated, x_t) -> Gaussian:
    toward_x0 = expand(coefficient.x0, x_t)
    mean = expand(coefficient.x_t, x_t) * x_t + toward_x0 * estimate.mean
    var = estimate.spread(expand(coefficient.var, x_t), toward_x0)
    return Gaussian(mean, jnp.broadcast_to(var, mean.shape).astype(mean.dtype))
