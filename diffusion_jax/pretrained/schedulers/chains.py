"""What a published scheduler is made into, and what many of them are made of."""

from functools import partial
from typing import NamedTuple

import jax

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Denoiser, Grid, GridOfIndices, MakeRescale, Rescale, Transform
from diffusion_jax.diffusion import guidance, parameterizations, processes, schedules, variances
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.samplers import Sampler
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.pretrained.published import Values
from diffusion_jax.pretrained.schedulers import tables
from diffusion_jax.pretrained.schedulers.tables import Walk

BOUNDS = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
CLIP = {"clip_sample": True, "clip_sample_range": 1.0}


class Anywhere(NamedTuple):
    """The noise and what the network says, for samplers that look between the entries of a table.

    Attributes:
      schedule: known at every t, its noise level finite.
      parameterization: on it.
      last: the time of the lowest level that the network knows.
    """

    schedule: Schedule
    parameterization: Parameterization
    last: float


def unknown_rescaling(phi: float) -> Rescale:
    """Of a network whose prediction has no size that is known."""
    raise InputError(f"--rescale {phi}: guidance by this scheduler's networks is not rescaled; leave it out")


class Sampling(NamedTuple):
    """What a network was trained for, and how its publishers sample it.

    Attributes:
      schedule: alpha and sigma.
      parameterization: what the network is given and what its output says.
      process: Gaussian noise, undone as the scheduler does.
      transforms: bounds of x0 (`guidance.clip`, `guidance.dynamic_threshold`), before all else.
      variance: the transform for ancestral samplers (`variances`); the identity where there is none.
      sampler: the scheduler's, to be used with `own` and then `variance`.
      grid: `steps -> times`, the scheduler's.
      own: `transforms`, or none where the sampler itself bounds x0, as DDIMScheduler's does.
      anywhere: the same between the entries of its table; None where it has none, or no noise level at its end.
      darkest: of its data, whose brightest value is 1.
      listed: `indices -> times`, the grid that looks at these entries of its table (`timesteps.listed`); None where
        its strides are equal, or its levels go by a curve.
      rescaled: `phi -> Rescale`, of guided predictions (`guidance.rescaled`); it refuses where none is known.
    """

    schedule: Schedule
    parameterization: Parameterization
    process: Process
    transforms: tuple[Transform, ...]
    variance: Transform
    sampler: Sampler
    grid: Grid
    own: tuple[Transform, ...]
    anywhere: Anywhere | None = None
    darkest: float = -1.0
    listed: GridOfIndices | None = None
    rescaled: MakeRescale = unknown_rescaling


def parts(
    values: Values, walk: Walk, process: Process, sampler: Sampler, parameterization: Parameterization | None = None
) -> Sampling:
    bounds = bounds_of(values)
    parameterization = parameterization or parameterization_of(values, walk)
    variance = variances.posterior(walk.schedule)
    return Sampling(
        walk.schedule,
        parameterization,
        process,
        bounds,
        variance,
        sampler,
        walk.grid,
        own=bounds,
        anywhere=between(values),
        listed=walk.listed,
        rescaled=rescaling_of(values, walk),
    )


def between(values: Values) -> Anywhere | None:
    """The noise level on straight lines of its logarithm, and fractions told to the network, as k-diffusion does."""
    try:
        walk = tables.between_entries(values, 0, schedules.through_log_levels)
    except InputError:
        return None  # without a level at its end
    return Anywhere(walk.schedule, parameterization_of(values, walk), 1 / walk.num)


def parameterization_of(values: Values, walk: Walk) -> Parameterization:
    kinds = {
        "epsilon": lambda: parameterizations.eps(walk.schedule, walk.time),
        "sample": lambda: parameterizations.x0(walk.time),
        "v_prediction": lambda: parameterizations.v(walk.schedule, walk.time),
    }
    return kinds[values.only("prediction_type", *kinds)]()


def rescaling_of(values: Values, walk: Walk) -> MakeRescale:
    """Rescaled is what the network predicts."""
    kinds: dict[str, MakeRescale] = {
        "epsilon": partial(guidance.rescaled_eps, walk.schedule),
        "sample": guidance.rescaled_x0,
        "v_prediction": partial(guidance.rescaled_v, walk.schedule),
    }
    return kinds[values.only("prediction_type", *kinds)]


def noisy(values: Values, walk: Walk, process: Process | None = None) -> Process:
    """Euler's kin begin with v z, but for `leading`: with x = sigma z and not with sqrt(alpha^2 + sigma^2) z."""
    process = process or processes.gaussian(walk.schedule, processes.ddim(0.0))
    if values["timestep_spacing"] == "leading":
        return process

    def prior(key, shape, t=1.0):
        return walk.schedule.sigma(t) * rng.flat(jax.random.normal, key, shape)

    return process._replace(prior=prior)


def bounds_of(values: Values) -> tuple[Transform, ...]:
    if "thresholding" in values.values and values.only("thresholding", False, True):
        return (guidance.dynamic_threshold(values["dynamic_thresholding_ratio"], values["sample_max_value"]),)
    if "clip_sample" in values.values and values.only("clip_sample", False, True):
        bound = values.number("clip_sample_range", 0.0, 1e9)
        return (guidance.clip(-bound, bound),)
    return ()


def as_it_is(denoise: Denoiser) -> Denoiser:
    return denoise


def last_entry(values: Values) -> int:
    return {"zero": 0, "sigma_min": 1}[values.only("final_sigmas_type", "zero", "sigma_min")]
