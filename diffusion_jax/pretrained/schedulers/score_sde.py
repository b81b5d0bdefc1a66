"""The VE SDE as score_sde and diffusers walk it (Song et al. 2021): a corrector, then a predictor, at each level."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import namespace
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import parameterizations, processes, samplers
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.pretrained.published import Values
from diffusion_jax.pretrained.schedulers import tables
from diffusion_jax.pretrained.schedulers.chains import Anywhere, Sampling, as_it_is

VE = {
    "num_train_timesteps": 2000,
    "snr": 0.15,
    "sigma_min": 0.01,
    "sigma_max": 1348.0,
    "sampling_eps": 1e-5,
    "correct_steps": 1,
}
LOWEST = 1e-3  # the time here of their lowest level; below it there is only the end of the chain, without noise


def ve(config: Mapping[str, Any]) -> Sampling:
    """ScoreSdeVeScheduler. Its data is in [0, 1], and its networks say the score and are told the level.

    A chain of N steps is at the levels sigma_min (sigma_max / sigma_min)^u, u = 1, ..., 1 / (N - 1), 0, and its last
    step ends on the estimate. The network is told a little more, u = sampling_eps in the place of 0. (diffusers
    computes the numbers of its levels in float32, where some of them are rounded to the next.) The corrector's steps
    are as long as each example's own norms say, where diffusers takes their means over the batch.
    """
    values = Values(config, VE, "ScoreSdeVeScheduler")
    num = values.integer("num_train_timesteps", 2)
    low, high = values.number("sigma_min", 1e-6, 1e6), values.number("sigma_max", 1e-6, 1e6)
    if not low < high:
        values.refuse("sigma_min", low, f"a number between 0 and sigma_max = {high} is expected")
    told, ratio = values.number("sampling_eps", 0.0, 0.1), math.log(high / low)

    def share(t):
        return (t - LOWEST) / (1 - LOWEST)

    def sigma(t):
        xp = namespace(t)
        t = xp.asarray(t, float)
        return xp.where(t < LOWEST, low * t / LOWEST, low * xp.exp(ratio * share(t)))

    def time(t):
        xp = namespace(t)
        return low * xp.exp(ratio * (told + (1 - told) * share(xp.asarray(t, float))))

    def grid(steps: int) -> np.ndarray:
        tables.check_steps(steps, num)
        if steps < 2 or (steps - 1) * told >= 1:
            raise InputError(f"{steps} steps: there must be 2 at least, and fewer than 1 / {told:g} (sampling_eps)")
        return np.append(LOWEST + np.linspace(1, 0, steps) * (1 - LOWEST), 0.0)

    def prior(key, shape, t=1.0):
        return sigma(np.asarray(t)) * rng.flat(jax.random.normal, key, shape)

    schedule = Schedule(alpha=lambda t: namespace(t).ones_like(namespace(t).asarray(t, float)), sigma=sigma)
    parameterization = parameterizations.score(schedule, time)
    process = processes.gaussian(schedule)._replace(prior=prior)
    sampler = samplers.corrector_predictor(
        schedule,
        samplers.euler_maruyama(schedule),
        values.number("snr", 1e-6, 1e3),
        values.integer("correct_steps", most=1000),
    )
    anywhere = Anywhere(schedule, parameterization, LOWEST)
    return Sampling(
        schedule, parameterization, process, (), as_it_is, sampler, grid, own=(), anywhere=anywhere, darkest=0.0
    )
