"""diffusers' scheduler_config.json as parts of ours: the noise, what the network says, and how it is sampled."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.published import Values
from diffusion_jax.pretrained.schedulers import (
    consistency,
    in_flow,
    in_levels,
    in_log_snr,
    in_time,
    score_sde,
    tables,
)
from diffusion_jax.pretrained.schedulers.chains import Sampling
from diffusion_jax.pretrained.schedulers.tables import TABLE, ZERO_SNR

KNOWN = {
    "DDPMScheduler": in_time.ddpm,
    "DDIMScheduler": in_time.ddim,
    "PNDMScheduler": in_time.pndm,
    "EulerDiscreteScheduler": in_levels.euler,
    "EulerAncestralDiscreteScheduler": in_levels.euler_ancestral,
    "HeunDiscreteScheduler": in_levels.heun,
    "LMSDiscreteScheduler": in_levels.lms,
    "KDPM2DiscreteScheduler": in_levels.kdpm_2,
    "KDPM2AncestralDiscreteScheduler": in_levels.kdpm_2_ancestral,
    "DPMSolverSDEScheduler": in_levels.dpm_sde,
    "DPMSolverMultistepScheduler": in_log_snr.dpm_multistep,
    "DPMSolverSinglestepScheduler": in_log_snr.dpm_singlestep,
    "UniPCMultistepScheduler": in_log_snr.unipc,
    "DEISMultistepScheduler": in_log_snr.deis,
    "FlowMatchEulerDiscreteScheduler": in_flow.flow,
    "CMStochasticIterativeScheduler": consistency.multistep,
    "LCMScheduler": consistency.latent,
    "ScoreSdeVeScheduler": score_sde.ve,
}


def sampling(config: Mapping[str, Any]) -> Sampling:
    """The parts that a scheduler_config.json names; values that are absent are those of diffusers.

    Chains are diffusers' own, step for step, or the value is refused by its name; where a number of steps does not
    suit a spacing, by the grid. What is copied although it is odd: DDIMScheduler bounds x0 and not the noise that it
    carries on (`samplers.ddim`), and steps as many entries down as a chain of equal steps would, wherever the next
    index lies; DDPMScheduler leaves noise on an image whose last index is not 0; PNDMScheduler averages v where the
    network says v, although only averages of noise are of second order.

    Raises:
      InputError: another scheduler, or a value that is not implemented.
    """
    name = str(config.get("_class_name"))
    if name not in KNOWN:
        raise InputError(f"scheduler {name[:100]!r} is not known; of use are {', '.join(KNOWN)}")
    return KNOWN[name](config)


def betas(config: Mapping[str, Any]) -> np.ndarray:
    """The table of betas of a scheduler_config.json, float64 [num_train_timesteps]. Errors as of `sampling`."""
    known = TABLE | ZERO_SNR
    return tables.betas(Values({k: config[k] for k in known if k in config}, known, "scheduler"))
