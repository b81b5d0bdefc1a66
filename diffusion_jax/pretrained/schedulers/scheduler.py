"""diffusers' scheduler_config.json as parts of ours: the noise, what the network says, and how it is sampled."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import schedules
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.pretrained import heard
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
    "UnCLIPScheduler": in_time.unclip,
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


# Where a table is another by default than `TABLE`, and schedulers that have none.
TABLES: dict[str, Mapping[str, Any]] = {
    "UnCLIPScheduler": in_time.UNCLIP,
    "HeunDiscreteScheduler": in_levels.HEUN,
    "KDPM2DiscreteScheduler": in_levels.KDPM_2,
    "KDPM2AncestralDiscreteScheduler": in_levels.KDPM_2,
    "DPMSolverSDEScheduler": in_levels.SDE,
    "LCMScheduler": consistency.LATENT,
}
WITHOUT = ("FlowMatchEulerDiscreteScheduler", "CMStochasticIterativeScheduler", "ScoreSdeVeScheduler")


class Noising(NamedTuple):
    """A table that noise is added by, of a chain that is not walked.

    Attributes:
      schedule: alpha and sigma, known at i / num.
      num: how many entries the table has.
    """

    schedule: Schedule
    num: int


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
    return KNOWN[_known(config)](config)


def table_of(config: Mapping[str, Any]) -> Noising:
    """The table of a scheduler_config.json by which a pipeline adds noise to what a network is told.

    `image_noising_scheduler` of DeepFloyd IF and Stable unCLIP, `low_res_scheduler` of the x4 upscaler: at the index
    i of the table x_t = alpha(t) x0 + sigma(t) eps, t = (i + 1) / num. How its scheduler would walk does not matter.

    Raises:
      InputError: a scheduler that is not known or has no table, a name that no scheduler knows, or a value of the
        table that is not implemented.
    """
    # What the network says does not matter either, not even where the table ends in noise alone.
    table = betas({**config, "prediction_type": "sample"})
    return Noising(schedules.from_betas(table), len(table))


def betas(config: Mapping[str, Any]) -> np.ndarray:
    """The table of betas of a scheduler_config.json, float64 [num_train_timesteps]. Errors as of `table_of`."""
    name = _known(config)
    if name in WITHOUT or config.get("use_flow_sigmas"):
        raise InputError(f"scheduler {name} has no table of betas here; give one that adds noise by a table")
    table = TABLE | ZERO_SNR
    table |= {key: value for key, value in TABLES.get(name, {}).items() if key in table}
    given = {key: value for key, value in config.items() if not heard.drops(name, key)}
    return tables.betas(Values(given, dict.fromkeys(heard.SCHEDULERS[name]) | table, name))


def _known(config: Mapping[str, Any]) -> str:
    name = str(config.get("_class_name"))
    if name not in KNOWN:
        raise InputError(f"scheduler {name[:100]!r} is not known; of use are {', '.join(KNOWN)}")
    return name
