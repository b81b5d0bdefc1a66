"""EDM's stochastic samplers: steps of any solver between which noise is added and taken away again."""

from typing import NamedTuple

import jax
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.samplers.core import Sampler
from diffusion_jax.diffusion.samplers.ode import finite_level, heun
from diffusion_jax.diffusion.schedules import Schedule, inverse_log_snr, log_snr


class ChurnPlan(NamedTuple):
    """x_hat = x x_t + noise z, and the solver's step from there; arrays [N] over a grid, scalars in a step."""

    x: jax.Array
    noise: jax.Array
    solver: object


def edm(
    schedule: Schedule,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
) -> Sampler:
    """Algorithm 2 of Karras et al. 2022: `churned` with Heun's method; s_churn = 0 is `heun`."""
    return churned(schedule, heun(schedule), s_churn, s_tmin, s_tmax, s_noise)


def churned(
    schedule: Schedule,
    solver: Sampler,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = float("inf"),
    s_noise: float = 1.0,
) -> Sampler:
    """Algorithm 2 of Karras et al. 2022, for any schedule and solver.

    Levels are v = sigma / alpha, images y = x / alpha.

    A step of N first raises the noise from v to (1 + gamma) v, with gamma = min(s_churn / N, sqrt(2) - 1) where
    s_tmin <= v <= s_tmax and 0 elsewhere, by adding noise of s_noise times the standard deviation that this takes;
    then it walks down by the solver. `euler` and `dpm_2` make k-diffusion's sample_euler and sample_dpm_2.

    A schedule ends at its own highest level, v(1), and the noise is raised no further than to that. For an unaltered
    Algorithm 2 without s_tmax, let the schedule reach sqrt(2) times the grid's first level.

    Args:
      schedule: known at every t wherever noise is added; a table of betas raises `InputError` unless s_churn = 0.
      solver: without memory and without noise of its own, its state the images alone: `euler`, `heun`, `dpm_2`.
      s_churn: the amount of new noise, over the whole chain; >= 0.
      s_tmin: the lowest level at which noise is added, in units of v.
      s_tmax: the highest.
      s_noise: the inflation of the new noise; the paper has 1.003 to 1.007.

    Raises:
      InputError: for a negative s_churn or s_noise, or a solver that keeps more than the images. The plan: as that of
        the solver, and where alpha(t) = 0.
    """
    if not (s_churn >= 0 and s_noise >= 0):
        raise InputError(f"s_churn and s_noise must be at least 0, not {s_churn} and {s_noise}")

    def plan(t, s):
        v = finite_level(schedule, t)
        gamma = np.where((s_tmin <= v) & (v <= s_tmax), min(s_churn / len(t), 2**0.5 - 1), 0.0)
        t_hat = t
        if gamma.any():
            room = np.exp(-0.5 * log_snr(schedule, np.array(1.0))) / v - 1  # up to v(1)
            gamma = np.minimum(gamma, np.maximum(room, 0.0))
            raised = inverse_log_snr(schedule, -2 * np.log(v * (1 + gamma)))
            t_hat = np.where(gamma > 0, raised, t)
        alpha_hat = schedule.alpha(t_hat)
        return ChurnPlan(
            x=alpha_hat / schedule.alpha(t),
            noise=s_noise * alpha_hat * v * np.sqrt(gamma * (2 + gamma)),
            solver=solver.plan(t_hat, s),
        )

    def step(keys, x_t, plan, denoise):
        x_hat = plan.x * x_t + plan.noise * rng.normal_like(keys, x_t)
        return solver.step(keys, x_hat, plan.solver, denoise)

    def init(x):
        if solver.init(x) is not x:
            raise InputError("a solver between churns may keep no more than the images: a multistep one remembers")
        return x

    return solver._replace(plan=plan, init=init, step=step)
