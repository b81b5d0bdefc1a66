"""Consistency models and their scheduler (Song et al. 2023)."""

import jax.numpy as jnp
import numpy as np

from diffusion_jax import guidance, processes, samplers
from diffusion_jax.arrays import expand, namespace
from diffusion_jax.distributions import Gaussian
from diffusion_jax.parameterizations import Parameterization
from diffusion_jax.pretrained import tables
from diffusion_jax.pretrained.chains import Sampling, as_it_is
from diffusion_jax.pretrained.published import Values
from diffusion_jax.schedules import Schedule

CONSISTENCY = {
    "num_train_timesteps": 40,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "s_noise": 1.0,
    "rho": 7.0,
    "clip_denoised": True,
}


def multistep(config) -> Sampling:
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

    said = consistency(schedule, values.number("sigma_data", 1e-6, 1e6), low)
    return Sampling(schedule, said, process, bounds, as_it_is, samplers.ancestral(process), grid, own=bounds)


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
