"""DDIM in its three terms: where the chain believes the data to be, the noise it carries on, and fresh noise."""

from typing import NamedTuple

import jax
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.protocols import Transform
from diffusion_jax.diffusion.processes.gaussian import ddim as share
from diffusion_jax.diffusion.samplers.core import Sampler
from diffusion_jax.diffusion.schedules import Schedule


class DDIMPlan(NamedTuple):
    """x_s = alpha_s x0 + keep (x_t - alpha_t D) + noise z; arrays [N] over a grid, scalars in a step."""

    t: jax.Array
    alpha_t: jax.Array
    alpha_s: jax.Array
    keep: jax.Array
    noise: jax.Array


def ddim(schedule: Schedule, eta: float = 0.0, bound: Transform = lambda denoise: denoise) -> Sampler:
    """DDIM (Song et al. 2021, equation 12), whose bound on x0 leaves the noise alone.

        x_s = alpha_s x0 + sqrt(sigma_s^2 - var) eps + sqrt(var) z,     var = eta^2 tau sigma_s^2,

    with eps = (x_t - alpha_t D) / sigma_t the noise that the estimate D leaves in x_t, and x0 what `bound` makes of
    D. Unbounded it is `ancestral(processes.gaussian(schedule, processes.ddim(eta)))`, step for step. A bound that
    stands before any other sampler also changes the noise that is carried on, to what the bounded x0 implies; here
    the network's own is, as in diffusers' DDIMScheduler.

    Args:
      schedule: alpha and sigma.
      eta: in [0, 1], the share of DDPM's fresh noise; `InputError` otherwise.
      bound: a transform of denoisers: `guidance.clip`, `guidance.dynamic_threshold`.
    """
    refresh = share(eta)

    def plan(t, s):
        kappa = refresh(schedule, t, s)
        sigma_s = schedule.sigma(s)
        return DDIMPlan(
            t=t,
            alpha_t=schedule.alpha(t),
            alpha_s=schedule.alpha(s),
            keep=np.sqrt(1 - kappa) * sigma_s / schedule.sigma(t),
            noise=np.sqrt(kappa) * sigma_s,
        )

    def step(keys, x_t, plan, denoise):
        estimate = denoise(x_t, plan.t)
        x0 = bound(lambda x, t: estimate)(x_t, plan.t).mean
        carried = plan.keep * (x_t - plan.alpha_t * estimate.mean)
        return plan.alpha_s * x0 + carried + plan.noise * rng.normal_like(keys, x_t)

    return Sampler(plan, init=lambda x: x, step=step, done=lambda x: x)
