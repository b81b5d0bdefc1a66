"""Consistency models' schedulers (Song et al. 2023), and latent ones' (Luo et al. 2023)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import OfLevel
from diffusion_jax.diffusion import guidance, parameterizations, processes, samplers
from diffusion_jax.diffusion.few_step import consistency
from diffusion_jax.diffusion.few_step import latent as latent_models
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
EDM = {
    "num_train_timesteps": 1000,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "sigma_schedule": "karras",
    "prediction_type": "epsilon",
    "rho": 7.0,
    "final_sigmas_type": "zero",
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


class Levels(NamedTuple):
    """The noise that a network of EDM's kind was trained on, without a table of betas.

    Attributes:
      low, high: the noise levels between which it was trained.
      sigma_data: standard deviation of its data.
      time: `level -> what the network is told`.
    """

    low: float
    high: float
    sigma_data: float
    time: OfLevel


def levels(config: Mapping[str, Any]) -> Levels:
    """What a scheduler_config.json says of the training of its network, which says EDM's F or a consistency model's.

    Raises:
      InputError: another scheduler than these two, or a value that is not implemented.
    """
    kinds: dict[str, tuple[dict[str, Any], OfLevel]] = {
        "CMStochasticIterativeScheduler": (CONSISTENCY, parameterizations.log_250),
        "EDMEulerScheduler": (EDM, parameterizations.quarter_log),
    }
    name = str(config.get("_class_name"))
    if name not in kinds:
        raise InputError(f"scheduler {name[:100]!r} tells no noise levels as EDM's do; of use are {', '.join(kinds)}")
    defaults, time = kinds[name]
    values = Values(config, defaults, name)
    if "prediction_type" in defaults:
        values.only("prediction_type", "epsilon")
    low, high, sigma_data = (values.number(name, 1e-6, 1e6) for name in ("sigma_min", "sigma_max", "sigma_data"))
    if not low < high:
        values.refuse("sigma_min", low, f"a number between 0 and sigma_max = {high} is expected")
    return Levels(low, high, sigma_data, time)


def multistep(config: Mapping[str, Any]) -> Sampling:
    """Song et al. 2023, algorithm 1. Their data is what is at sigma_min: time 0 here, where nothing is added."""
    values, (low, high, sigma_data, time) = (
        Values(config, CONSISTENCY, "CMStochasticIterativeScheduler"),
        levels(config),
    )
    num, rho = values.integer("num_train_timesteps"), values.number("rho", 1e-6, 1e6)
    values.only("s_noise", 1.0)

    schedule = consistency.renoising(low, high)
    process = consistency.process(consistency.levels(low, high), schedule)
    bounds = (guidance.clip(),) if values.only("clip_denoised", False, True) else ()

    def grid(steps: int) -> np.ndarray:
        tables.check_steps(steps, num)
        chosen = np.arange(steps) * (num // steps)
        # All of the steps would end with one at sigma_min, where the estimate is x_t itself.
        chosen = chosen[(chosen == 0) | (chosen < num - 1)]
        return np.append(consistency.training_grid(num, low, high, rho)[chosen], 0.0)

    parameterization = parameterizations.consistency(schedule, sigma_data, low, time)
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

    def grid(steps: int) -> np.ndarray:
        return latent_models.grid(steps, num, original)

    process = processes.gaussian(walk.schedule, processes.renoise)
    found = parts(values, walk, process, samplers.ancestral(process))
    return found._replace(grid=grid, own=(*found.own, latent_models.boundary(walk.time, scaling)))


def distilled(config: Mapping[str, Any], bounded: bool, original: int) -> dict[str, Any]:
    """The scheduler_config.json of a latent consistency model that was distilled from a model with another one.

    Args:
      config: of a scheduler with a table of betas.
      bounded: whether it bounds x0.
      original: how many entries of the table were distilled.
    """
    names = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "prediction_type")
    defaults = {name: TABLE[name] for name in names} | ZERO_SNR | BOUNDS | CLIP
    kept = {name: config.get(name, default) for name, default in defaults.items()}
    if not bounded:
        kept |= {"thresholding": False, "clip_sample": False}
    return {"_class_name": "LCMScheduler", **kept, "original_inference_steps": original}
