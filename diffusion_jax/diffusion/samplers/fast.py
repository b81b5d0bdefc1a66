"""DPM-Solver-fast: as many steps of third order as a number of looks has room for, and a shorter end."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.processes import check_interval
from diffusion_jax.diffusion.samplers import nodes
from diffusion_jax.diffusion.samplers.core import Sampler
from diffusion_jax.diffusion.samplers.nodes import Looks
from diffusion_jax.diffusion.samplers.ode import finite_level
from diffusion_jax.diffusion.samplers.two_looks import at_level, check_noise, down_and_up
from diffusion_jax.diffusion.schedules import Schedule


class FastPlan(NamedTuple):
    """x_s = x x_t + first e_first + last e_last + noise z; arrays [N], `looks` [N, 3]."""

    looks: Looks
    x: jax.Array
    first: jax.Array
    last: jax.Array
    noise: jax.Array


def dpm_fast(schedule: Schedule, looks: int, eta: float = 0.0, s_noise: float = 1.0) -> Sampler:
    """DPM-Solver-fast (Lu et al. 2022, "DPM-Solver", appendix D.4; k-diffusion's dpm_fast).

    Its M = looks // 3 + 1 steps are of third order, but the last of the order that is left, or of the second and then
    the first where 3 divides `looks`. Their lengths are the grid's: `timesteps.log_snr(schedule, M + 1, first, last)`
    has equal ones, as published. A further step, to s = 0, looks once more and ends on the estimate.

    Deterministic with eta = 0. Else each step goes down to v_d <= v_s and noise brings it up again
    (`two_looks.down_and_up`), but never below the grid's lowest level.

    Args:
      schedule: known at every t, for a step looks between the grid's times.
      looks: evaluations of the network, but for a step to s = 0; >= 1.
      eta: in [0, 1].
      s_noise: multiplies the noise; >= 0.

    Raises:
      InputError: for others. The plan: unless 0 <= s < t <= 1, where alpha(t) = 0, and for another number of steps.
    """
    check_noise(eta, s_noise)
    if looks < 1:
        raise InputError(f"DPM-Solver-fast looks at least once beside its step to 0, not {looks} times")

    def plan(t, s):
        check_interval(t, s)
        order = _orders(looks, s)
        v_t, alpha_t, alpha_s = finite_level(schedule, t), schedule.alpha(t), schedule.alpha(s)
        v_s = schedule.sigma(s) / alpha_s
        lowest = np.where(s > 0, v_s[s > 0][-1], 0.0)
        v_d = np.maximum(down_and_up(v_t, v_s, eta)[0], lowest)
        h = np.log(v_t / np.where(s > 0, v_d, v_t))  # a step to s = 0 has one look
        first, last = np.select(
            [order == 3, order == 2],
            [nodes.exact(v_t, v_d, h, 2 / 3), nodes.midpoint(v_t, v_d, 1 / 2)],
            nodes.constant(v_t, v_d),
        )
        due = np.arange(3)[:, None] < order
        seen = nodes.looks(schedule, t, h, nodes.PLACES[order - 1].T, due, partial(at_level, schedule))
        return FastPlan(
            jax.tree.map(np.transpose, seen),
            x=alpha_s / alpha_t,
            first=alpha_s * first,
            last=alpha_s * last,
            noise=s_noise * alpha_s * np.sqrt(v_s**2 - v_d**2),
        )

    def step(keys, x_t, plan, denoise):
        seen = nodes.see(x_t, plan.looks, denoise)
        x_s = plan.x * x_t + plan.first * seen[0] + plan.last * seen[-1]
        if eta:
            x_s = x_s + plan.noise * rng.normal_like(keys, x_t)
        return x_s.astype(x_t.dtype)

    return Sampler(plan, init=lambda x: x, step=step, done=lambda x: x)


def _orders(looks: int, s) -> np.ndarray:
    """Of the steps to `s` [N]."""
    whole, rest = divmod(looks, 3)
    orders = [3] * whole + [rest] if rest else [3] * (whole - 1) + [2, 1]
    steps = int((s > 0).sum())
    if steps != len(orders):
        raise InputError(
            f"DPM-Solver-fast makes {len(orders)} steps of {looks} looks, not {steps}: "
            f"timesteps.log_snr(schedule, {len(orders) + 1}) has as many"
        )
    return np.array(orders + [1] * (len(s) - steps))
