"""Annealed Langevin dynamics, NCSN's sampler: no reverse process, only one level of noise after another."""

from typing import NamedTuple

import jax
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.processes import check_interval
from diffusion_jax.diffusion.samplers.core import Sampler
from diffusion_jax.diffusion.samplers.ode import finite_level
from diffusion_jax.diffusion.schedules import Schedule


class LangevinPlan(NamedTuple):
    """At t: x + pull (alpha D(x, t) - x) + noise z, again and again; then x times `rescale`, to stand at s."""

    t: jax.Array
    alpha: jax.Array
    pull: jax.Array
    noise: jax.Array
    rescale: jax.Array
    last: jax.Array


def annealed_langevin(schedule: Schedule, steps: int = 100, eps: float = 2e-5, denoised: bool = False) -> Sampler:
    """Song & Ermon 2019, algorithm 1: `steps` of Langevin dynamics at each level of noise, the highest first.

    The levels are the grid's N times t, v_i = sigma / alpha there (NCSN: alpha = 1); the grid's end is only where it
    stops. At the level i, y = x / alpha does

        y <- y + (a_i / 2) score + sqrt(a_i) z,     a_i = eps v_i^2 / v_N^2,    score = (D - y) / v_i^2,

    so that y goes the share eps / (2 v_N^2) of the way to its estimate, the same at every level: 0.1 with the
    published eps = 2e-5 and v_N = 0.01. It must stay well below 1. One level alone is plain Langevin dynamics.

    The images that are returned carry the last level's noise, as NCSN's do. With `denoised` a step to s = 0 ends on
    the estimate instead, at one more network evaluation (Song & Ermon 2020; Jolicoeur-Martineau et al. 2021).

    Raises:
      InputError: for steps < 1 or eps <= 0. The plan: unless 0 <= s < t <= 1, or where alpha(t) = 0.
    """
    if not (steps >= 1 and eps > 0):
        raise InputError(f"Langevin dynamics needs at least 1 step and eps > 0, not {steps} and {eps}")

    def plan(t, s):
        check_interval(t, s)
        v = finite_level(schedule, t)
        return LangevinPlan(
            t=t,
            alpha=schedule.alpha(t),
            pull=np.full_like(v, eps / (2 * v[-1] ** 2)),
            noise=schedule.sigma(t) * np.sqrt(eps) / v[-1],
            rescale=schedule.alpha(s) / schedule.alpha(t),
            last=s == 0,
        )

    def step(keys, x_t, plan, denoise):
        def langevin(number, x):
            drift = plan.pull * (plan.alpha * denoise(x, plan.t).mean - x)
            return x + drift + plan.noise * rng.normal_like(rng.each(keys, number), x)

        x_t = jax.lax.fori_loop(0, steps, langevin, x_t)
        if not denoised:
            return plan.rescale * x_t
        return jax.lax.cond(plan.last, lambda: denoise(x_t, plan.t).mean, lambda: plan.rescale * x_t)

    return Sampler(plan, init=lambda x: x, step=step, done=lambda x: x)
