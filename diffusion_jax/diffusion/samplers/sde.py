"""Solvers of the reverse SDE: Euler-Maruyama, and a corrector that any one of the samplers may be given.

The forward SDE dx = f x dt + g dw has f = d log alpha / dt and g^2 = alpha^2 d(sigma / alpha)^2 / dt, and runs
backwards by dx = (f x - g^2 score) dt + g dw (Song et al. 2021, equation 6). With the denoiser's mean D,
score = (alpha D - x) / sigma^2.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Denoiser
from diffusion_jax.diffusion.processes import check_interval
from diffusion_jax.diffusion.samplers.core import Sampler
from diffusion_jax.diffusion.schedules import Schedule


class SDEPlan(NamedTuple):
    """x_s = x x_t + x0 D(x_t, t) + noise z; arrays [N] over a grid, scalars in a step."""

    t: jax.Array
    x: jax.Array
    x0: jax.Array
    noise: jax.Array


class LevelPlan(NamedTuple):
    """The score at `t` is gain (alpha D(x, t) - x), with gain = 1 / sigma_t^2."""

    t: jax.Array
    alpha: jax.Array
    gain: jax.Array


def euler_maruyama(schedule: Schedule) -> Sampler:
    """The reverse SDE by steps of Euler-Maruyama, its coefficients taken from the schedule's own increments:

        x_s = x_t + F x_t + G^2 score + G z,    F = 1 - alpha_t / alpha_s,
        G^2 = sigma_t^2 - (alpha_t sigma_s / alpha_s)^2,

    which are -f (t - s) and g^2 (t - s) as the step becomes short. Between the neighbours of a table it is the
    reverse diffusion sampler of Song et al. 2021, the predictor of their algorithms 2 (VE: F = 0, G^2 = sigma_t^2 -
    sigma_s^2) and 3 (VP: F = 1 - sqrt(1 - beta), G^2 = beta). First order in law. The step to s = 0 adds no noise.
    The plan raises `InputError` unless 0 <= s < t <= 1.
    """

    def plan(t, s):
        check_interval(t, s)
        ratio = schedule.alpha(t) / schedule.alpha(s)
        sigma_t = schedule.sigma(t)
        left = (ratio * schedule.sigma(s) / sigma_t) ** 2
        pull = 1 - left  # G^2 / sigma_t^2
        return SDEPlan(
            t=t,
            x=2 - ratio - pull,
            x0=pull * schedule.alpha(t),
            noise=np.where(s > 0, sigma_t * np.sqrt(pull), 0.0),
        )

    def step(keys, x_t, plan, denoise):
        mean = plan.x * x_t + plan.x0 * denoise(x_t, plan.t).mean
        return mean + plan.noise * rng.normal_like(keys, x_t)

    return Sampler(plan, init=lambda x: x, step=step, done=lambda x: x)


def predictor_corrector(schedule: Schedule, predictor: Sampler, snr: float = 0.16, steps: int = 1) -> Sampler:
    """After each of the predictor's steps, `steps` of Langevin dynamics (Song et al. 2021, algorithm 1).

        x <- x + e score(x, s) + sqrt(2 e) z,     e = 2 (snr |z| / |score|)^2       (algorithms 4 and 5)

    Norms are each example's own, where the paper's code averages them over the batch: images do not depend on their
    neighbours. Algorithm 5's factor 1 - beta_i, near 1, is left out. A score of few entries may nearly vanish, and
    the step then is long: the rule is meant for images. At s = 0 there is no score and nothing is corrected.

    Args:
      schedule: the one that the predictor walks.
      predictor: a sampler without memory, whose state is the images alone: `euler_maruyama`, `ancestral`, `euler`.
      snr: the paper's r, > 0.
      steps: Langevin steps, and network evaluations, a level; >= 1.

    Raises:
      InputError: for another snr or number of steps, or a predictor that keeps more than the images.
    """
    _check_corrector(snr, steps)

    def plan(t, s):
        check_interval(t, s)
        return predictor.plan(t, s), s == 0, _level(schedule, s)

    def step(keys, x_t, plan, denoise):
        predicting, last, level = plan
        predict, correct = rng.split(keys, 2)
        x_s = predictor.step(predict, x_t, predicting, denoise)
        return jax.lax.cond(last, lambda: x_s, lambda: _correct(correct, x_s, level, denoise, snr, steps))

    return Sampler(plan, init=partial(_alone, predictor), step=step, done=lambda x: x)


def corrector_predictor(schedule: Schedule, predictor: Sampler, snr: float = 0.16, steps: int = 1) -> Sampler:
    """`predictor_corrector` in the order of score_sde's code: each step corrects at t first, and then goes to s.

    Arguments and errors as of `predictor_corrector`.
    """
    _check_corrector(snr, steps)

    def plan(t, s):
        return predictor.plan(t, s), _level(schedule, t)

    def step(keys, x_t, plan, denoise):
        predicting, level = plan
        predict, correct = rng.split(keys, 2)
        return predictor.step(predict, _correct(correct, x_t, level, denoise, snr, steps), predicting, denoise)

    return Sampler(plan, init=partial(_alone, predictor), step=step, done=lambda x: x)


def _check_corrector(snr: float, steps: int):
    if not (snr > 0 and steps >= 1):
        raise InputError(f"a corrector needs snr > 0 and at least 1 step, not {snr} and {steps}")


def _alone(predictor: Sampler, x):
    if predictor.init(x) is not x:
        raise InputError("a predictor may keep no more than the images: a multistep sampler cannot be corrected")
    return x


def _level(schedule: Schedule, t) -> LevelPlan:
    gain = np.divide(1.0, schedule.sigma(t) ** 2, where=t > 0, out=np.zeros(len(t)))
    return LevelPlan(t, schedule.alpha(t), gain)


def _correct(keys, x, level: LevelPlan, denoise: Denoiser, snr: float, steps: int):
    """`steps` of Langevin dynamics at one level."""

    def langevin(number, x):
        score = level.gain * (level.alpha * denoise(x, level.t).mean - x)
        z = rng.normal_like(rng.each(keys, number), x)
        size, flat = _square(score), _square(z)
        # Where the score is 0 it says nothing of the step's length; stay.
        e = 2 * snr**2 * jnp.where(size > 0, flat / jnp.where(size > 0, size, 1.0), 0.0)
        return x + e * score + jnp.sqrt(2 * e) * z

    return jax.lax.fori_loop(0, steps, langevin, x)


def _square(x):
    """Sums of squares, [B, 1, ..., 1]."""
    return jnp.sum(x**2, axis=tuple(range(1, x.ndim)), keepdims=True)
