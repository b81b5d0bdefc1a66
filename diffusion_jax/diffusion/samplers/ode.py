"""Solvers of the probability-flow ODE: the deterministic walk with the marginals of the diffusion.

In y = x / alpha and v = sigma / alpha every Gaussian diffusion has one and the same ODE (Karras et al. 2022, equation
1; Song et al. 2021, equation 13),

    dy / dv = (y - D(x, t)) / v,    D the denoiser's mean,

and its solvers are written there. Steps are carried out on x itself, with coefficients that stay finite where v is 0.
"""

from typing import NamedTuple

import jax
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Denoiser, Time
from diffusion_jax.diffusion.processes import check_interval
from diffusion_jax.diffusion.samplers.core import Sampler
from diffusion_jax.diffusion.schedules import Schedule


class EulerPlan(NamedTuple):
    """x_s = x x_t + x0 D(x_t, t); arrays [N] over a grid, scalars in a step."""

    t: jax.Array
    x: jax.Array
    x0: jax.Array


class HeunPlan(NamedTuple):
    """An Euler step, and x_s = that + change (D(that, s) - D(x_t, t)) unless `last`, where s = 0."""

    euler: EulerPlan
    s: jax.Array
    last: jax.Array
    change: jax.Array


def euler(schedule: Schedule) -> Sampler:
    """Euler's method, first order: y + (v_s - v_t) dy/dv at t. It is DDIM with eta = 0.

    From t = 1 with alpha = 0, and to s = 0, the step is well defined: x_s = (sigma_s / sigma_t) (x_t - alpha_t D) +
    alpha_s D. One network evaluation a step. The plan raises `InputError` unless 0 <= s < t <= 1.
    """

    def step(keys, x_t, plan, denoise):
        return euler_step(x_t, plan, denoise(x_t, plan.t).mean)

    return Sampler(lambda t, s: euler_plan(schedule, t, s), init=lambda x: x, step=step, done=lambda x: x)


def heun(schedule: Schedule) -> Sampler:
    """Heun's method, second order (Karras et al. 2022, algorithm 1): the mean of two slopes, at t and at s.

    Two network evaluations a step, and one in the step to s = 0, which is Euler's: there the slope has no value. The
    plan raises `InputError` unless 0 <= s < t <= 1, and where alpha(t) = 0, for there v is infinite: start a grid of
    `cosine` or `flow` below t = 1.
    """

    def step(keys, x_t, plan, denoise):
        return heun_step(x_t, plan, denoise)

    return Sampler(lambda t, s: heun_plan(schedule, t, s), init=lambda x: x, step=step, done=lambda x: x)


def euler_plan(schedule: Schedule, t: Time, s: Time) -> EulerPlan:
    """Euler's coefficients from t to s, both [N]: alpha_s (D + (v_s / v_t) (y - D)), gathered."""
    check_interval(t, s)
    keep = schedule.sigma(s) / schedule.sigma(t)
    return EulerPlan(t, keep, schedule.alpha(s) - keep * schedule.alpha(t))


def euler_step(x_t: jax.Array, plan: EulerPlan, x0: jax.Array) -> jax.Array:
    return plan.x * x_t + plan.x0 * x0


def heun_plan(schedule: Schedule, t: Time, s: Time) -> HeunPlan:
    """Heun's coefficients from t to s, both [N].

    Euler's point has the slope of the start: (y_1 - D_1) / v_s = d_1. The second slope is therefore
    d_2 = d_1 + (D_1 - D_2) / v_s, and the step adds (v_s - v_t) (d_2 - d_1) / 2 = (v_t / v_s - 1) (D_2 - D_1) / 2
    to Euler's: no small difference is divided by a small v.
    """
    plan = euler_plan(schedule, t, s)
    alpha_s, v_t, v_s = schedule.alpha(s), finite_level(schedule, t), schedule.sigma(s) / schedule.alpha(s)
    last = s == 0
    ratio = np.divide(v_t, v_s, where=~last, out=np.ones_like(v_t))
    return HeunPlan(plan, s, last, alpha_s * (ratio - 1) / 2)


def heun_step(x_t: jax.Array, plan: HeunPlan, denoise: Denoiser) -> jax.Array:
    x0 = denoise(x_t, plan.euler.t).mean
    x_s = euler_step(x_t, plan.euler, x0)

    def corrected():
        return x_s + plan.change * (denoise(x_s, plan.s).mean - x0)

    return jax.lax.cond(plan.last, lambda: x_s, corrected)


def finite_level(schedule: Schedule, t: Time) -> np.ndarray:
    """The noise levels sigma / alpha at `t` [N]; `InputError` where nothing is left of the data."""
    alpha = schedule.alpha(t)
    if not np.all(alpha > 0):
        raise InputError("the noise level sigma / alpha is infinite at t = 1; start the grid a little below")
    return schedule.sigma(t) / alpha
