"""Consistency models' schedulers (Song et al. 2023), and latent ones' (Luo et al. 2023)."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import expand, namespace
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import guidance, processes, samplers
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.pretrained.published import Values
from diffusion_jax.pretrained.schedulers import tables
from diffusion_jax.pretrained.schedulers.chains import BOUNDS, CLIP, Sampling, as_it_is, parts
from diffusion_jax.pretrained.schedulers.tables import TABLE, ZERO_SNR

CONSISTENCY = {
    "num_train_timesteps": 40,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "s_noise": 1.0,
    "rho": 7.0,
    "clip_denoised": True,
}


# "original_inference_steps" is the grid that the network was distilled on; spacings and ends are not listened to.
LATENT = (
    TABLE
    | ZERO_SNR
    | BOUNDS
    | CLIP
    | {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False}
    | {"original_inference_steps": 50, "timestep_scaling": 10.0, "set_alpha_to_one": True}
)


def multistep(config: Mapping[str, Any]) -> Sampling:
    """Song et al. 2023, algorithm 1. Their data is what is at sigma_min: time 0 here, where nothing is added."""
    values = Values(config, CONSISTENCY, "CMStochasticIterativeScheduler")
    num = values.integer("num_train_timesteps")
    low, high, rho = (values.number(name, 1e-6, 1e6) for name in ("sigma_min", "sigma_max", "rho"))
    if not low < high:
        values.refuse("sigma_min", low, f"a number between 0 and sigma_max = {high} is expected")
    values.only("s_noise", 1.0)

    def sigma(t):
        xp = namespace(t)
        t = xp.asarray(t, float)
        return xp.sqrt((low + t * (high - low)) ** 2 - low**2)

    schedule = Schedule(alpha=lambda t: namespace(t).ones_like(namespace(t).asarray(t, float)), sigma=sigma)
    process = processes.gaussian(schedule, processes.renoise)
    bounds = (guidance.clip(),) if values.only("clip_denoised", False, True) else ()

    def grid(steps: int) -> np.ndarray:
        tables.check_steps(steps, num)
        share = np.arange(steps) * (num // steps) / max(num - 1, 1)
        levels = (high ** (1 / rho) + share * (low ** (1 / rho) - high ** (1 / rho))) ** rho
        times = np.clip((levels - low) / (high - low), 0.0, 1.0)
        # All of the steps would end with one at sigma_min, where the estimate is x_t itself.
        return np.append(times[share < 1], 0.0)

    parameterization = consistency(schedule, values.number("sigma_data", 1e-6, 1e6), low)
    return Sampling(
        schedule, parameterization, process, bounds, as_it_is, samplers.ancestral(process), grid, own=bounds
    )


def latent(config: Mapping[str, Any]) -> Sampling:
    """LCMScheduler: an estimate, and noise for the next of a few levels, again and again (algorithm 3).

    The estimate is c_skip x_t + c_out x0, with c_skip = 0.25 / (u^2 + 0.25), c_out = u / sqrt(u^2 + 0.25), and u the
    step's index times `timestep_scaling`: x_t itself at the first entry.
    """
    values = Values(config, LATENT, "LCMScheduler")
    walk = tables.at_entries(values, 0)
    num, original = walk.num, values.integer("original_inference_steps")
    if original > num:
        values.refuse("original_inference_steps", original, f"at most num_train_timesteps = {num} are expected")
    scaling = values.number("timestep_scaling", 0.0, 1e6)

    def boundary(denoise):
        def at(x_t, t):
            u = expand(walk.time(t), x_t) * scaling
            x0 = denoise(x_t, t).mean
            return Gaussian(0.25 / (u**2 + 0.25) * x_t + u / (u**2 + 0.25) ** 0.5 * x0)

        return at

    def grid(steps: int) -> np.ndarray:
        if not 1 <= steps <= original:
            raise InputError(f"the number of sampling steps must lie in 1, ..., {original}, not {steps}")
        chosen = original - np.floor(np.linspace(0, original, steps, endpoint=False))
        return np.append(chosen * (num // original), 0.0) / num

    process = processes.gaussian(walk.schedule, processes.renoise)
    found = parts(values, walk, process, samplers.ancestral(process))
    return found._replace(grid=grid, own=(*found.own, boundary))


def consistency(schedule: Schedule, sigma_data: float, sigma_min: float) -> Parameterization:
    """Consistency models (Song et al. 2023, appendix C): `parameterizations.edm`, but x0 = x_t at sigma_min exactly.

    With s^2 = sigma_min^2 + (sigma / alpha)^2 the level of the noise, the estimate is c_skip x + c_out F, with
    c_skip = sigma_data^2 / ((s - sigma_min)^2 + sigma_data^2) and c_out = sigma_data (s - sigma_min) /
    sqrt(s^2 + sigma_data^2). The network is given x / sqrt(s^2 + sigma_data^2) and 250 log s. alpha = 1.
    """

    def level(t):
        return namespace(t).sqrt(sigma_min**2 + (schedule.sigma(t) / schedule.alpha(t)) ** 2)

    def skip_and_out(t, x):
        s = expand(level(t), x)
        skip = sigma_data**2 / ((s - sigma_min) ** 2 + sigma_data**2)
        return skip, (s - sigma_min) * sigma_data / (s**2 + sigma_data**2) ** 0.5

    def scale(x_t, t):
        return x_t / (expand(level(t), x_t) ** 2 + sigma_data**2) ** 0.5, 250 * jnp.log(level(t))

    def read(output, x_t, t):
        skip, out = skip_and_out(t, x_t)
        return Gaussian(skip * x_t + out * output)

    def target(x0, noise, t):
        skip, out = skip_and_out(t, x0)
        return (x0 - skip * (x0 + expand(schedule.sigma(t), x0) * noise)) / out

    return Parameterization(scale, read, target)
