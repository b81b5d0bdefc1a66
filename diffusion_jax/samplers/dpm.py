"""DPM-Solver++(2M): a second-order solver that costs one network evaluation a step, because it remembers the last.

With lambda = log(alpha / sigma) and h its increase over a step, the probability-flow ODE has the exact solution

    x_s = (sigma_s / sigma_t) x_t + alpha_s int_{0}^{h} e^{u - h} D du,

D the denoiser's mean at lambda_t + u (Lu et al. 2022, "DPM-Solver++", proposition 4.1). The solvers put a value
of D at the step's middle in front of the integral, extrapolated from the present estimate and the one before:

    D = D_t + (h / 2 h_before) (D_t - D_before)         (algorithm 2, with r = h_before / h).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax import rng
from diffusion_jax.processes import check_interval
from diffusion_jax.samplers.core import Sampler
from diffusion_jax.schedules import Schedule


class DPMPlan(NamedTuple):
    """x_s = x x_t + x0 D + noise z, D = D_t + memory (D_t - D_before); arrays [N] over a grid, scalars in a step."""

    t: jax.Array
    x: jax.Array
    x0: jax.Array
    memory: jax.Array
    noise: jax.Array | None = None


class Remembered(NamedTuple):
    """The images, and the estimate of x0 that the step before made of them; both [B, ...]."""

    x: jax.Array
    x0: jax.Array


def dpmpp_2m(schedule: Schedule) -> Sampler:
    """DPM-Solver++(2M) (Lu et al. 2022, algorithm 2): deterministic, second order.

    The first step, and every step that begins or ends where lambda is infinite (t = 1 where alpha = 0; s = 0), is of
    first order, DDIM's. The step to s = 0 returns the estimate. The plan raises `InputError` unless 0 <= s < t <= 1.
    """

    def plan(t, s):
        check_interval(t, s)
        keep = schedule.sigma(s) / schedule.sigma(t)
        return DPMPlan(
            t=t,
            x=keep,
            x0=schedule.alpha(s) - schedule.alpha(t) * keep,  # alpha_s (1 - e^-h)
            memory=_memory(schedule, t, s),
        )

    def step(keys, state, plan, denoise):
        x0, target = _extrapolate(state, plan, denoise)
        return Remembered(plan.x * state.x + plan.x0 * target, x0)

    return Sampler(plan, init=_init, step=step, done=lambda state: state.x)


def dpmpp_2m_sde(schedule: Schedule) -> Sampler:
    """SDE-DPM-Solver++(2M) (Lu et al. 2022): the same for the reverse diffusion SDE.

        x_s = e^-h (sigma_s / sigma_t) x_t + alpha_s (1 - e^-2h) D + sigma_s sqrt(1 - e^-2h) z

    Without memory it is DDPM's posterior, step for step. Steps of first order, and errors, are those of `dpmpp_2m`.
    """

    def plan(t, s):
        check_interval(t, s)
        keep = schedule.sigma(s) / schedule.sigma(t)
        left = _left(schedule, t, s)
        return DPMPlan(
            t=t,
            x=left * keep,
            x0=schedule.alpha(s) * (1 - left**2),
            noise=schedule.sigma(s) * np.sqrt(1 - left**2),
            memory=_memory(schedule, t, s),
        )

    def step(keys, state, plan, denoise):
        x0, target = _extrapolate(state, plan, denoise)
        noise = rng.normal_like(keys, state.x)
        return Remembered(plan.x * state.x + plan.x0 * target + plan.noise * noise, x0)

    return Sampler(plan, init=_init, step=step, done=lambda state: state.x)


def _init(x) -> Remembered:
    return Remembered(x, jnp.zeros_like(x))


def _extrapolate(state: Remembered, plan: DPMPlan, denoise):
    x0 = denoise(state.x, plan.t).mean
    return x0, x0 + plan.memory * (x0 - state.x0)


def _left(schedule: Schedule, t, s) -> np.ndarray:
    """e^-h = (alpha_t / sigma_t) / (alpha_s / sigma_s), finite at both ends: [N], in [0, 1)."""
    return schedule.alpha(t) * schedule.sigma(s) / (schedule.alpha(s) * schedule.sigma(t))


def _memory(schedule: Schedule, t, s) -> np.ndarray:
    """h / (2 h_before), [N]; 0 where there is no step before, or either is infinitely long."""
    with np.errstate(divide="ignore"):
        h = -np.log(_left(schedule, t, s))
    before = np.concatenate([[np.inf], h[:-1]])
    return np.divide(h, 2 * before, where=np.isfinite(h), out=np.zeros_like(h))
