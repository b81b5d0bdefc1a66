"""Solvers of noise levels that look twice a step: DPM-Solver-2 and DPM-Solver++(2S), with or without fresh noise.

In y = x / alpha and v = sigma / alpha a step goes from v_t down to v_d <= v_s, and noise brings it up to v_s again:

    v_d^2 + v_u^2 = v_s^2,     v_u = eta v_s sqrt(1 - (v_s / v_t)^2),

eta = 0 being the probability-flow ODE and eta = 1 all the noise of DDPM's posterior (`processes.ddim`). On its way
down it looks a second time, at v_m = sqrt(v_t v_d), half-way in log v. A step to s = 0 looks once and ends on the
estimate.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import namespace
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.processes import check_interval
from diffusion_jax.diffusion.samplers.core import Sampler
from diffusion_jax.diffusion.samplers.ode import finite_level
from diffusion_jax.diffusion.schedules import Schedule, inverse_log_snr


class TwoLooksPlan(NamedTuple):
    """x_m = first_x x_t + first_x0 D(x_t, t), and that is x_s if it is the `last`; else
    x_s = x x_t + middle x_m + x0 D(x_m, tau) + noise z. Arrays [N] over a grid, scalars in a step.
    """

    t: jax.Array
    tau: jax.Array
    last: jax.Array
    first_x: jax.Array
    first_x0: jax.Array
    x: jax.Array
    middle: jax.Array
    x0: jax.Array
    noise: jax.Array


def dpm_2(schedule: Schedule, eta: float = 0.0, s_noise: float = 1.0) -> Sampler:
    """DPM-Solver-2 in levels (Karras et al. 2022, appendix D.2; Lu et al. 2022): the slope at v_m for the whole step.

        y_m = y + (v_m - v_t) eps(y, v_t),     y_s = y + (v_d - v_t) eps(y_m, v_m) + v_u z

    Deterministic and of second order with eta = 0. eta = 1 is k-diffusion's dpm_2_ancestral. Two looks a step, and
    one in that to s = 0.

    Args:
      schedule: known at every t, for v_m lies between the grid's.
      eta: in [0, 1].
      s_noise: multiplies the noise; >= 0.

    Raises:
      InputError: for another eta or s_noise. The plan: unless 0 <= s < t <= 1, and where alpha(t) = 0.
    """

    def second(v_t, v_m, v_d):
        slope = (v_d - v_t) / v_m
        return np.ones_like(v_t), slope, -slope

    return _two_looks(schedule, eta, s_noise, second)


def dpmpp_2s(schedule: Schedule, eta: float = 0.0, s_noise: float = 1.0) -> Sampler:
    """DPM-Solver++(2S) with its node half-way (Lu et al. 2022, "DPM-Solver++", algorithm 1).

        y_m = (v_m / v_t) y + (1 - v_m / v_t) D(y, v_t),     y_s = (v_d / v_t) y + (1 - v_d / v_t) D(y_m, v_m) + v_u z

    Of second order with eta = 0; eta = 1 is k-diffusion's dpmpp_2s_ancestral. Arguments and errors as of `dpm_2`.
    """

    def second(v_t, v_m, v_d):
        return v_d / v_t, np.zeros_like(v_t), 1 - v_d / v_t

    return _two_looks(schedule, eta, s_noise, second)


def down_and_up(v_t: Any, v_s: Any, eta: float) -> tuple:
    """v_d and v_u of the steps from v_t to v_s, NumPy or JAX."""
    xp = namespace(v_t)
    up = eta * v_s * xp.sqrt(1 - (v_s / v_t) ** 2)
    return xp.sqrt(v_s**2 - up**2), up


def check_noise(eta: float, s_noise: float):
    """Raise `InputError` unless 0 <= eta <= 1 and s_noise >= 0."""
    if not (0 <= eta <= 1 and s_noise >= 0):
        raise InputError(f"eta must lie in [0, 1] and s_noise be at least 0, not {eta} and {s_noise}")


def at_level(schedule: Schedule, v: np.ndarray) -> np.ndarray:
    """The times at which sigma / alpha is `v` [N], > 0."""
    return inverse_log_snr(schedule, -2 * np.log(v))


def _two_looks(
    schedule: Schedule,
    eta: float,
    s_noise: float,
    second: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[Any, Any, Any]],
) -> Sampler:
    check_noise(eta, s_noise)

    def plan(t, s):
        check_interval(t, s)
        alpha_t, alpha_s, last = schedule.alpha(t), schedule.alpha(s), s == 0
        v_t, v_s = finite_level(schedule, t), schedule.sigma(s) / alpha_s
        v_d, up = down_and_up(v_t, v_s, eta)
        v_m = np.where(last, v_t, np.sqrt(v_t * v_d))
        tau = np.where(last, t, at_level(schedule, v_m))
        alpha_m = np.where(last, alpha_s, schedule.alpha(tau))
        reached = np.where(last, 0.0, v_m / v_t)  # of the first look's way, towards D
        x, middle, x0 = second(v_t, v_m, v_d)
        return TwoLooksPlan(
            t=t,
            tau=tau,
            last=last,
            first_x=alpha_m / alpha_t * reached,
            first_x0=alpha_m * (1 - reached),
            x=alpha_s / alpha_t * x,
            middle=alpha_s / alpha_m * middle,
            x0=alpha_s * x0,
            noise=s_noise * alpha_s * up,
        )

    def step(keys, x_t, plan, denoise):
        x_m = plan.first_x * x_t + plan.first_x0 * denoise(x_t, plan.t).mean

        def again():
            x0 = denoise(x_m, plan.tau).mean
            found = plan.x * x_t + plan.middle * x_m + plan.x0 * x0
            if eta:
                found = found + plan.noise * rng.normal_like(keys, x_t)
            return found.astype(x_m.dtype)

        return jax.lax.cond(plan.last, lambda: x_m, again)

    return Sampler(plan, init=lambda x: x, step=step, done=lambda x: x)
