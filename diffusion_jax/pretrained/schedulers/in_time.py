"""Published schedulers that step in time: DDPM, DDIM and PNDM."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import parameterizations, processes, samplers, variances
from diffusion_jax.diffusion.samplers.pndm import IMPROVED_EULER, NOISE, RUNGE_KUTTA, VELOCITY
from diffusion_jax.pretrained.published import Values
from diffusion_jax.pretrained.schedulers import tables
from diffusion_jax.pretrained.schedulers.chains import (
    BOUNDS,
    CLIP,
    Sampling,
    as_it_is,
    bounds_of,
    parameterization_of,
    parts,
)
from diffusion_jax.pretrained.schedulers.tables import TABLE, ZERO_SNR, Walk

DDPM = TABLE | ZERO_SNR | BOUNDS | CLIP | {"variance_type": "fixed_small"}
DDIM = TABLE | ZERO_SNR | BOUNDS | CLIP | {"set_alpha_to_one": True}
PNDM = TABLE | {"set_alpha_to_one": False}
UNCLIP = CLIP | {
    "num_train_timesteps": 1000,
    "beta_schedule": "squaredcos_cap_v2",
    "prediction_type": "epsilon",
    "variance_type": "fixed_small_log",
}
NARROWEST = 1e-20  # of a learned variance


def ddpm(config: Mapping[str, Any]) -> Sampling:
    """DDPMScheduler: `samplers.ancestral`."""
    return _posterior(Values(config, DDPM, "DDPMScheduler"))


def unclip(config: Mapping[str, Any]) -> Sampling:
    """UnCLIPScheduler: DDPM's steps on the cosine's table, at the indices round(i (T - 1) / (N - 1)), falling."""
    values = Values(config, UNCLIP, "UnCLIPScheduler")
    values.only("beta_schedule", "squaredcos_cap_v2")
    values.only("prediction_type", "epsilon", "sample")
    values.only("variance_type", "fixed_small_log", "learned_range")
    return _posterior(Values(values.values | {"timestep_spacing": "linspace"}, DDPM, values.what))


def _posterior(values: Values) -> Sampling:
    walk = tables.at_entries(values, 0)
    schedule, num = walk.schedule, walk.num
    parameterization, variance = parameterization_of(values, walk), variances.posterior(schedule)
    kind = values.only("variance_type", "fixed_small", "fixed_small_log", "fixed_large", "learned_range")
    if kind == "learned_range":
        # Only an image that ends in noise, see below, knows how narrow the last kernel may be.
        parameterization, variance = parameterizations.learned_range(parameterization, schedule, NARROWEST), as_it_is
    if kind == "fixed_large":
        variance = variances.fixed_large(schedule)
    process = processes.gaussian(schedule)
    ancestral = samplers.ancestral(process)

    def plan(t, s):
        # The chain ends on the kernel's mean at index 0, and in noise at any other.
        return t, t * num < 1.5, process.bridge(t, s)

    found = parts(values, walk, process, ancestral._replace(plan=plan), parameterization)
    return found._replace(variance=variance)


def ddim(config: Mapping[str, Any]) -> Sampling:
    values = Values(config, DDIM, "DDIMScheduler")
    last = 0 if values.only("set_alpha_to_one", False, True) else 1
    walk = tables.at_entries(values, last)
    bounds = bounds_of(values)
    (bound,) = bounds or (as_it_is,)
    sampler = samplers.ddim(walk.schedule, 0.0, bound)

    def landing(t):
        """Where diffusers has a step from t land: c = T // N entries lower, or at the end."""
        index = np.rint(t * walk.num) - walk.num // _steps(walk, t)
        return np.where(index >= 1, index, last) / walk.num

    def grid(steps):
        times = walk.grid(steps)
        # A step that moves nothing but bounds x0: the sampler knows where it lands.
        return times if len(times) > steps else np.append(times, 0.0)

    process = processes.gaussian(walk.schedule, processes.ddim(0.0))
    sampler = sampler._replace(plan=lambda t, s, plan=sampler.plan: plan(t, landing(t)))
    return parts(values, walk, process, sampler)._replace(grid=grid, own=(), listed=None)


def _steps(walk: Walk, t: np.ndarray) -> int:
    """Of the whole chain, of which `t` may be the end alone: one that begins from a picture."""

    def ends(num: int) -> bool:
        try:
            return np.allclose(walk.grid(num)[num - len(t) : num], t)
        except InputError:  # no grid has as many steps
            return False

    return next((num for num in range(len(t), walk.num + 1) if ends(num)), len(t))


def pndm(config: Mapping[str, Any]) -> Sampling:
    values = Values(config, PNDM, "PNDMScheduler")
    values.only("prediction_type", "epsilon", "v_prediction")
    walk = tables.at_entries(values, 0 if values.only("set_alpha_to_one", False, True) else 1)
    num, skip = walk.num, values.only("skip_prk_steps", False, True)
    direction = VELOCITY if values["prediction_type"] == "v_prediction" else NOISE

    def grid(steps):
        times = walk.grid(steps)
        stride, index = num // steps, np.rint(times * num)[:steps]
        if not (np.diff(index) == -stride).all() or index[-1] > stride:
            raise InputError(
                f"PNDMScheduler walks in equal steps: {steps} of this spacing are not; take steps that "
                f"divide {num}, or timestep_spacing = 'leading'"
            )
        if not skip and (steps < 4 or stride % 2):
            raise InputError(
                f"PNDMScheduler without skip_prk_steps halves its first steps and takes at least 4: "
                f"{steps} steps of {num} are {stride} entries long; take a number that makes them even"
            )
        return times

    process = processes.gaussian(walk.schedule, processes.ddim(0.0))
    sampler = samplers.pndm(walk.schedule, IMPROVED_EULER if skip else RUNGE_KUTTA, direction)
    return parts(values, walk, process, sampler)._replace(grid=grid, listed=None)
