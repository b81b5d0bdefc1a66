"""Published schedulers that step in noise levels v = sigma / alpha: Euler's kin."""

from collections.abc import Callable, Mapping
from typing import Any

from diffusion_jax.diffusion import processes, samplers, schedules
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.pretrained.published import Values
from diffusion_jax.pretrained.schedulers import tables
from diffusion_jax.pretrained.schedulers.chains import CLIP, Sampling, last_entry, noisy, parts
from diffusion_jax.pretrained.schedulers.curves import CURVES
from diffusion_jax.pretrained.schedulers.tables import TABLE, ZERO_SNR

LINSPACE = TABLE | {"timestep_spacing": "linspace"}
STABLE = {"beta_start": 0.00085, "beta_end": 0.012}
EULER = (
    LINSPACE
    | ZERO_SNR
    | CURVES
    | {
        "interpolation_type": "linear",
        "timestep_type": "discrete",
        "final_sigmas_type": "zero",
        "sigma_min": None,
        "sigma_max": None,
    }
)
EULER_ANCESTRAL = LINSPACE | ZERO_SNR
HEUN = LINSPACE | STABLE | CURVES | CLIP | {"clip_sample": False}
LMS = LINSPACE | CURVES
KDPM_2 = LINSPACE | STABLE | CURVES
SDE = KDPM_2 | {"noise_sampler_seed": None}


def euler(config: Mapping[str, Any]) -> Sampling:
    """EulerDiscreteScheduler: DDIM, but for where it looks and starts."""
    values = Values(config, EULER, "EulerDiscreteScheduler")
    values.only("interpolation_type", "linear")
    values.only("timestep_type", "discrete")
    last = last_entry(values)
    walk = tables.between_entries(values, last)
    sampler = samplers.euler(walk.schedule)
    if last:
        # Their images are x / alpha.
        alpha = float(walk.schedule.alpha(last / walk.num))
        sampler = sampler._replace(done=lambda x: x / alpha)
    return parts(values, walk, noisy(values, walk), sampler)


def euler_ancestral(config: Mapping[str, Any]) -> Sampling:
    """EulerAncestralDiscreteScheduler: it is DDPM's posterior, with v_down and v_up for its mean and its noise."""
    values = Values(config, EULER_ANCESTRAL, "EulerAncestralDiscreteScheduler")
    walk = tables.between_entries(values, 0)
    process = noisy(values, walk, processes.gaussian(walk.schedule))
    return parts(values, walk, process, samplers.ancestral(process))


def heun(config: Mapping[str, Any]) -> Sampling:
    """HeunDiscreteScheduler."""
    return _plain(Values(config, HEUN, "HeunDiscreteScheduler"), samplers.heun)


def lms(config: Mapping[str, Any]) -> Sampling:
    """LMSDiscreteScheduler, of order 4."""
    return _plain(Values(config, LMS, "LMSDiscreteScheduler"), samplers.lms)


def kdpm_2(config: Mapping[str, Any]) -> Sampling:
    """KDPM2DiscreteScheduler: `samplers.dpm_2`."""
    return _kdpm_2(Values(config, KDPM_2, "KDPM2DiscreteScheduler"), 0.0)


def kdpm_2_ancestral(config: Mapping[str, Any]) -> Sampling:
    """KDPM2AncestralDiscreteScheduler: `samplers.dpm_2` with eta = 1."""
    return _kdpm_2(Values(config, KDPM_2, "KDPM2AncestralDiscreteScheduler"), 1.0)


def dpm_sde(config: Mapping[str, Any]) -> Sampling:
    """DPMSolverSDEScheduler: `samplers.dpmpp_sde`, whose noise is another for each example and not for a seed."""
    values = Values(config, SDE, "DPMSolverSDEScheduler")
    values.only("prediction_type", "epsilon", "v_prediction")
    values.only("noise_sampler_seed", None)
    return _half_way(values, samplers.dpmpp_sde)


def _plain(values: Values, make: Callable[[Schedule], samplers.Sampler]) -> Sampling:
    walk = tables.between_entries(values, 0)
    return parts(values, walk, noisy(values, walk), make(walk.schedule))


def _kdpm_2(values: Values, eta: float) -> Sampling:
    if values["use_karras_sigmas"]:
        values.refuse("use_karras_sigmas", True, "diffusers rounds the times of its levels but not those between")
    return _half_way(values, lambda schedule: samplers.dpm_2(schedule, eta))


def _half_way(values: Values, make: Callable[[Schedule], samplers.Sampler]) -> Sampling:
    """Of samplers that look half-way in log v."""
    walk = tables.between_entries(values, 0, schedules.through_log_levels)
    return parts(values, walk, noisy(values, walk), make(walk.schedule))
