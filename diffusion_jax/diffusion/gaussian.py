"""The forward and posterior formulas of Gaussian diffusion, under their usual names.

x_t = alpha_t x0 + sigma_t eps, with eps ~ N(0, I). Images have any shape; t (and s < t) is a number, or an
array of one time an example whose shape is a prefix of the image's, in [0, 1]. Results have the image's
shape. The formulas hold for every `Schedule`, variance preserving or not, and for any pair s < t: a chain of
fewer steps needs no formulas of its own.

Four names of one thing, each a linear function of the others given x_t:

    x0;   eps = (x_t - alpha x0) / sigma;   v = alpha eps - sigma x0;   score = -eps / sigma.
"""

from typing import Any

import jax

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.protocols import Time
from diffusion_jax.diffusion.schedules import Schedule


def q_sample(schedule: Schedule, x0: jax.Array, t: Time, eps: jax.Array) -> jax.Array:
    """x_t ~ q(x_t | x0) from the standard normal `eps` (DDPM equation 4, reparameterised)."""
    return expand(schedule.alpha(t), x0) * x0 + expand(schedule.sigma(t), x0) * eps


def q_marginal(schedule: Schedule, x0: jax.Array, t: Time) -> Gaussian:
    """q(x_t | x0) (DDPM equation 4)."""
    return Gaussian(expand(schedule.alpha(t), x0) * x0, expand(schedule.sigma(t), x0) ** 2)


def refreshed(schedule: Schedule, t: Time, s: Time) -> Any:
    """tau = 1 - (alpha_t sigma_s / (alpha_s sigma_t))^2, what x_t and x0 leave open of x_s's noise.

    It is the posterior variance in units of sigma_s^2; between neighbours of a table of betas
    tau = beta_t / sigma_t^2. In [0, 1], 1 at s = 0.
    """
    return 1 - (schedule.alpha(t) * schedule.sigma(s) / (schedule.alpha(s) * schedule.sigma(t))) ** 2


def q_posterior(schedule: Schedule, x0: jax.Array, x_t: jax.Array, t: Time, s: Time) -> Gaussian:
    """q(x_s | x_t, x0) for s < t (DDPM equations 6 and 7, between any two times)."""
    tau = refreshed(schedule, t, s)
    toward_x0 = schedule.alpha(s) * tau
    toward_x_t = schedule.alpha(t) * schedule.sigma(s) ** 2 / (schedule.alpha(s) * schedule.sigma(t) ** 2)
    variance = schedule.sigma(s) ** 2 * tau
    return Gaussian(expand(toward_x0, x0) * x0 + expand(toward_x_t, x_t) * x_t, expand(variance, x0))


def x0_from_eps(schedule: Schedule, x_t: jax.Array, eps: jax.Array, t: Time) -> jax.Array:
    """The x0 that `eps` in x_t implies (DDPM, section 3.2); alpha_t > 0."""
    return (x_t - expand(schedule.sigma(t), x_t) * eps) / expand(schedule.alpha(t), x_t)


def eps_from_x0(schedule: Schedule, x_t: jax.Array, x0: jax.Array, t: Time) -> jax.Array:
    """The noise that x0 in x_t implies; t > 0."""
    return (x_t - expand(schedule.alpha(t), x_t) * x0) / expand(schedule.sigma(t), x_t)


def v_from_x0(schedule: Schedule, x0: jax.Array, eps: jax.Array, t: Time) -> jax.Array:
    """v = alpha eps - sigma x0 (Salimans & Ho 2022, equation 9)."""
    return expand(schedule.alpha(t), x0) * eps - expand(schedule.sigma(t), x0) * x0


def x0_from_v(schedule: Schedule, x_t: jax.Array, v: jax.Array, t: Time) -> jax.Array:
    """x0 = (alpha x_t - sigma v) / (alpha^2 + sigma^2)."""
    alpha, sigma = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
    return (alpha * x_t - sigma * v) / (alpha**2 + sigma**2)


def eps_from_v(schedule: Schedule, x_t: jax.Array, v: jax.Array, t: Time) -> jax.Array:
    """eps = (sigma x_t + alpha v) / (alpha^2 + sigma^2)."""
    alpha, sigma = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
    return (sigma * x_t + alpha * v) / (alpha**2 + sigma**2)


def score_from_eps(schedule: Schedule, eps: jax.Array, t: Time) -> jax.Array:
    """grad log q(x_t) = -E[eps | x_t] / sigma_t (DDPM section 3.2; Song et al. 2021); t > 0."""
    return -eps / expand(schedule.sigma(t), eps)


def eps_from_score(schedule: Schedule, score: jax.Array, t: Time) -> jax.Array:
    """eps = -sigma_t score."""
    return -expand(schedule.sigma(t), score) * score
