"""DPM-Solver++ of the reverse SDE that looks twice a step, with fresh noise before each look's estimate is used.

In y = x / alpha and v = sigma / alpha, D the denoiser's mean, a step from v_t to v_s looks a second time at v_m, the
share r of the way in log v. Both times it goes down to a v_d and noise brings it up (`two_looks.down_and_up`):

    y_m = (m_d / v_t) y + (1 - m_d / v_t) D(y, v_t) + m_u z_m
    y_s = (v_d / v_t) y + (1 - v_d / v_t) ((1 - 1 / 2r) D(y, v_t) + D(y_m, v_m) / 2r) + v_u z_s

(Katherine Crowson's k-diffusion, after Lu et al. 2022, "DPM-Solver++".) Both noises are of one Brownian path with v
for its clock: what happened until v_m is part of what happened until v_s.
"""

from typing import NamedTuple

import jax
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.processes import check_interval
from diffusion_jax.diffusion.samplers.core import Sampler
from diffusion_jax.diffusion.samplers.ode import finite_level
from diffusion_jax.diffusion.samplers.two_looks import at_level, check_noise, down_and_up
from diffusion_jax.diffusion.schedules import Schedule


class TwoNoisesPlan(NamedTuple):
    """x_m = first_x x_t + first_x0 D + first_noise z_m, and that is x_s if it is the `last`; else
    x_s = x x_t + x0 D + middle_x0 D(x_m, tau) + noise (path z_m + rest z). Arrays [N] over a grid, scalars in a step.
    """

    t: jax.Array
    tau: jax.Array
    last: jax.Array
    first_x: jax.Array
    first_x0: jax.Array
    first_noise: jax.Array
    x: jax.Array
    x0: jax.Array
    middle_x0: jax.Array
    noise: jax.Array
    path: jax.Array
    rest: jax.Array


def dpmpp_sde(schedule: Schedule, eta: float = 1.0, s_noise: float = 1.0, r: float = 0.5) -> Sampler:
    """k-diffusion's dpmpp_sde: two looks a step, and one in that to s = 0, which ends on the estimate.

    Deterministic and of second order with eta = 0; with eta = 1, all the noise of DDPM's posterior.

    Args:
      schedule: known at every t, for v_m lies between the grid's.
      eta: in [0, 1].
      s_noise: multiplies the noise; >= 0.
      r: where the second look is, in (0, 1).

    Raises:
      InputError: for another eta, s_noise or r. The plan: unless 0 <= s < t <= 1, and where alpha(t) = 0.
    """
    check_noise(eta, s_noise)
    if not 0 < r < 1:
        raise InputError(f"the second look of a step is at a share r in (0, 1) of it, not {r}")

    def plan(t, s):
        check_interval(t, s)
        alpha_t, alpha_s, last = schedule.alpha(t), schedule.alpha(s), s == 0
        v_t, v_s = finite_level(schedule, t), schedule.sigma(s) / alpha_s
        v_m = np.where(last, v_t, v_t ** (1 - r) * v_s**r)
        tau = np.where(last, t, at_level(schedule, v_m))
        alpha_m = np.where(last, alpha_s, schedule.alpha(tau))
        (m_d, m_u), (v_d, v_u) = (down_and_up(v_t, v, eta) for v in (np.where(last, 0.0, v_m), v_s))
        path = np.where(last, 0.0, (v_t - v_m) / (v_t - v_s))
        return TwoNoisesPlan(
            t=t,
            tau=tau,
            last=last,
            first_x=alpha_m / alpha_t * m_d / v_t,
            first_x0=alpha_m * (1 - m_d / v_t),
            first_noise=s_noise * alpha_m * m_u,
            x=alpha_s / alpha_t * v_d / v_t,
            x0=alpha_s * (1 - v_d / v_t) * (1 - 0.5 / r),
            middle_x0=alpha_s * (1 - v_d / v_t) * (0.5 / r),
            noise=s_noise * alpha_s * v_u,
            path=np.sqrt(path),
            rest=np.sqrt(1 - path),
        )

    def step(keys, x_t, plan, denoise):
        x0 = denoise(x_t, plan.t).mean
        z_m, z = (rng.normal_like(some, x_t) for some in rng.split(keys, 2))
        x_m = plan.first_x * x_t + plan.first_x0 * x0 + plan.first_noise * z_m

        def again():
            middle = denoise(x_m, plan.tau).mean
            found = plan.x * x_t + plan.x0 * x0 + plan.middle_x0 * middle
            return (found + plan.noise * (plan.path * z_m + plan.rest * z)).astype(x_m.dtype)

        return jax.lax.cond(plan.last, lambda: x_m, again)

    return Sampler(plan, init=lambda x: x, step=step, done=lambda x: x)
