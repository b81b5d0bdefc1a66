"""diffusers' scheduler_config.json as parts of ours: the noise, what the network says, and how it is sampled."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax import (
    guidance,
    likelihood,
    parameterizations,
    processes,
    samplers,
    schedules,
    timesteps,
    variances,
)
from diffusion_jax.arrays import expand, namespace
from diffusion_jax.distributions import Gaussian
from diffusion_jax.errors import InputError
from diffusion_jax.parameterizations import Parameterization
from diffusion_jax.pretrained.published import Values
from diffusion_jax.processes import Process
from diffusion_jax.samplers import Sampler
from diffusion_jax.samplers.pndm import IMPROVED_EULER, NOISE, RUNGE_KUTTA, VELOCITY
from diffusion_jax.schedules import Schedule

TABLE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "rescale_betas_zero_snr": False,
    "skip_prk_steps": False,  # of PNDM's own steps
    "variance_type": None,  # of DDPM's
}
BOUNDS = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
CLIP = {"clip_sample": True, "clip_sample_range": 1.0}

DDPM = TABLE | BOUNDS | CLIP | {"variance_type": "fixed_small"}
DDIM = TABLE | BOUNDS | CLIP | {"set_alpha_to_one": True}
PNDM = TABLE | {"set_alpha_to_one": False}
EULER = TABLE | {
    "timestep_spacing": "linspace",
    "interpolation_type": "linear",
    "timestep_type": "discrete",
    "final_sigmas_type": "zero",
}
DPM = (
    TABLE
    | BOUNDS
    | {
        "timestep_spacing": "linspace",
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -float("inf"),
        "variance_type": None,
        "flow_shift": 1.0,  # of flows
        "time_shift_type": "exponential",  # of flows
    }
)
CONSISTENCY = {
    "num_train_timesteps": 40,
    "sigma_min": 0.002,
    "sigma_max": 80.0,
    "sigma_data": 0.5,
    "s_noise": 1.0,
    "rho": 7.0,
    "clip_denoised": True,
}


class Sampling(NamedTuple):
    """What a network was trained for, and how its publishers sample it.

    Attributes:
      schedule: alpha and sigma.
      parameterization: what the network is given and what its output says.
      process: Gaussian noise, undone as the scheduler does.
      transforms: bounds of x0 (`guidance.clip`, `guidance.dynamic_threshold`), before all else.
      variance: the transform for ancestral samplers (`variances`); the identity where there is none.
      sampler: the scheduler's, to be used with `transforms` and then `variance`.
      grid: `steps -> times`, the scheduler's.
    """

    schedule: Schedule
    parameterization: Parameterization
    process: Process
    transforms: tuple[Callable, ...]
    variance: Callable
    sampler: Sampler
    grid: Callable


def sampling(config: Mapping[str, Any]) -> Sampling:
    """The parts that a scheduler_config.json names; values that are absent are those of diffusers.

    DDPMScheduler is ancestral sampling, DDIMScheduler DDIM with eta = 0, DPMSolverMultistepScheduler
    DPM-Solver++(2M) or its stochastic form, CMStochasticIterativeScheduler multistep consistency sampling.
    EulerDiscreteScheduler is DDIM as well, which is Euler's method in sigma / alpha; fractions of a table's entry,
    which it interpolates, are rounded. PNDMScheduler is `samplers.plms` with skip_prk_steps, of one evaluation more
    than steps, and else `samplers.pndm`, of nine more. Where the network says v, it is v that they average, as
    diffusers does, although only averages of noise are of second order. Where the indices of `samplers.pndm` are an
    odd number apart, diffusers tells the network a neighbouring time in the first steps, and images differ a little.

    Raises:
      InputError: another scheduler, or a value that is not implemented.
    """
    name = str(config.get("_class_name"))
    known = {
        "DDPMScheduler": _ddpm,
        "DDIMScheduler": _ddim,
        "PNDMScheduler": _pndm,
        "EulerDiscreteScheduler": _euler,
        "DPMSolverMultistepScheduler": _dpm,
        "CMStochasticIterativeScheduler": _consistency,
    }
    if name not in known:
        raise InputError(f"scheduler {name[:100]!r} is not known; of use are {', '.join(known)}")
    return known[name](config)


def betas(config: Mapping[str, Any]) -> np.ndarray:
    """The table of betas of a scheduler_config.json, float64 [num_train_timesteps]. Errors as of `sampling`."""
    return _betas(Values({k: config[k] for k in TABLE if k in config}, TABLE, "scheduler"))


# ---- The schedulers.


def _ddpm(config) -> Sampling:
    values = Values(config, DDPM, "DDPMScheduler")
    schedule, num = _table(values)
    said, variance = _said(values, schedule, num), variances.posterior(schedule)
    kind = values.only("variance_type", "fixed_small", "fixed_small_log", "fixed_large", "learned_range")
    if kind == "learned_range":
        # The posterior variance of the second step, as in Improved DDPM's code.
        narrowest = likelihood.second_variance(schedule, timesteps.uniform(num, num))
        said, variance = parameterizations.learned_range(said, schedule, narrowest), _as_it_is
    if kind == "fixed_large":
        variance = variances.fixed_large(schedule)
    process = processes.gaussian(schedule)
    grid = _grid(values, num, 0)
    return Sampling(schedule, said, process, _bounds(values), variance, samplers.ancestral(process), grid)


def _ddim(config) -> Sampling:
    values = Values(config, DDIM, "DDIMScheduler")
    return _deterministic(values, _bounds(values), 0 if values.only("set_alpha_to_one", False, True) else 1)


def _pndm(config) -> Sampling:
    values = Values(config, PNDM, "PNDMScheduler")
    found = _deterministic(values, (), 0 if values.only("set_alpha_to_one", False, True) else 1)
    num = values["num_train_timesteps"]
    start = IMPROVED_EULER if values.only("skip_prk_steps", False, True) else RUNGE_KUTTA
    direction = VELOCITY if values["prediction_type"] == "v_prediction" else NOISE

    def near(t):
        return np.floor(t * num + 1e-6) / num  # halfway between two entries of the table: the lower

    return found._replace(sampler=samplers.pndm(found.schedule, start, direction, near))


def _euler(config) -> Sampling:
    values = Values(config, EULER, "EulerDiscreteScheduler")
    values.only("interpolation_type", "linear")
    values.only("timestep_type", "discrete")
    return _deterministic(values, (), _last(values))


def _deterministic(values: Values, bounds: tuple, last: int) -> Sampling:
    schedule, num = _table(values)
    process = processes.gaussian(schedule, processes.ddim(0.0))
    said, grid, variance = _said(values, schedule, num), _grid(values, num, last), variances.posterior(schedule)
    return Sampling(schedule, said, process, bounds, variance, samplers.ancestral(process), grid)


def _dpm(config) -> Sampling:
    values = Values(config, DPM, "DPMSolverMultistepScheduler")
    for name, value in (("solver_order", 2), ("solver_type", "midpoint"), ("lower_order_final", True)):
        values.only(name, value)
    values.only("lambda_min_clipped", -float("inf"), "-inf", "-Infinity")
    values.only("variance_type", None)
    kinds = {"dpmsolver++": samplers.dpmpp_2m, "sde-dpmsolver++": samplers.dpmpp_2m_sde}
    schedule, num = _table(values)
    sampler = kinds[values.only("algorithm_type", *kinds)](schedule)
    last, spacing = _last(values), _spacing(values)

    def grid(steps: int) -> np.ndarray:
        # One more than the steps, without the last of them; but for those that end at the largest noise.
        _checked(steps, num)
        index = spacing(steps, num) if values["timestep_spacing"] == "trailing" else spacing(steps + 1, num)[:-1]
        return _times(index, num, last)

    process = processes.gaussian(schedule)
    return Sampling(schedule, _said(values, schedule, num), process, _bounds(values), _as_it_is, sampler, grid)


def _consistency(config) -> Sampling:
    """Song et al. 2023, algorithm 1. Their data is what is at sigma_min: time 0 here, where nothing is added."""
    values = Values(config, CONSISTENCY, "CMStochasticIterativeScheduler")
    num, (low, high) = values.integer("num_train_timesteps"), (values["sigma_min"], values["sigma_max"])
    if not 0 < low < high:
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
        share = np.arange(_checked(steps, num)) * (num // steps) / max(num - 1, 1)
        root = 1 / values["rho"]
        levels = (high**root + share * (low**root - high**root)) ** values["rho"]
        times = np.clip((levels - low) / (high - low), 0.0, 1.0)
        # All of the steps would end with one at sigma_min, where the estimate is x_t itself.
        return np.append(times[share < 1], 0.0)

    said = consistency(schedule, values["sigma_data"], low)
    return Sampling(schedule, said, process, bounds, _as_it_is, samplers.ancestral(process), grid)


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


# ---- What they are made of.


def _betas(values: Values) -> np.ndarray:
    num, given = values.integer("num_train_timesteps"), values["trained_betas"]
    if given is not None:
        table = np.asarray(given, np.float64) if type(given) is list and given else np.zeros(0)
        if table.shape != (num,):
            values.refuse("trained_betas", given, f"a list of num_train_timesteps = {num} numbers is expected")
    else:
        start, end = values.number("beta_start", 0.0, 1.0), values.number("beta_end", 0.0, 1.0)
        kinds = {
            "linear": lambda: schedules.linear_betas(num, start, end),
            "scaled_linear": lambda: schedules.quadratic_betas(num, start, end),
            "squaredcos_cap_v2": lambda: schedules.cosine_betas(num),
            "sigmoid": lambda: schedules.sigmoid_betas(num, start, end),
        }
        table = kinds[values.only("beta_schedule", *kinds)]()
    return schedules.zero_terminal_snr(table) if values.only("rescale_betas_zero_snr", False, True) else table


def _table(values: Values) -> tuple[Schedule, int]:
    table = _betas(values)
    return schedules.from_betas(table), len(table)


def _said(values: Values, schedule: Schedule, num: int) -> Parameterization:
    time = parameterizations.table_index(num)
    kinds = {
        "epsilon": lambda: parameterizations.eps(schedule, time),
        "sample": lambda: parameterizations.x0(time),
        "v_prediction": lambda: parameterizations.v(schedule, time),
    }
    return kinds[values.only("prediction_type", *kinds)]()


def _bounds(values: Values) -> tuple[Callable, ...]:
    if values.only("thresholding", False, True):
        return (guidance.dynamic_threshold(values["dynamic_thresholding_ratio"], values["sample_max_value"]),)
    if "clip_sample" in values.values and values.only("clip_sample", False, True):
        bound = values.number("clip_sample_range", 0.0, 1e9)
        return (guidance.clip(-bound, bound),)
    return ()


def _as_it_is(denoise):
    return denoise


def _last(values: Values) -> int:
    return {"zero": 0, "sigma_min": 1}[values.only("final_sigmas_type", "zero", "sigma_min")]


def _grid(values: Values, num: int, last: int) -> Callable:
    spacing = _spacing(values)
    return lambda steps: _times(spacing(_checked(steps, num), num), num, last)


def _spacing(values: Values) -> Callable:
    """`(steps, num) -> indices`, falling, from 0 as diffusers counts them (Lin et al. 2024, table 2)."""
    offset = values.integer("steps_offset", 0)
    kinds = {
        "linspace": lambda steps, num: np.rint(np.linspace(0, num - 1, steps))[::-1],
        "leading": lambda steps, num: np.arange(steps)[::-1] * (num // steps) + offset,
        "trailing": lambda steps, num: np.rint(timesteps.uniform(steps, num)[:-1] * num) - 1,
    }
    return kinds[values.only("timestep_spacing", *kinds)]


def _times(index: np.ndarray, num: int, last: int) -> np.ndarray:
    """The grid of a table's indices, and on to its entry `last`, unless it is there already."""
    if index[0] >= num:
        raise InputError(f"the scheduler's first index is {index[0]:g} of {num}; take fewer than {len(index)} steps")
    times = (index + 1.0) / num
    return np.append(times, last / num) if times[-1] > last / num else times


def _checked(steps: int, num: int) -> int:
    if not 1 <= steps <= num:
        raise InputError(f"the number of sampling steps must lie in 1, ..., {num}, not {steps}")
    return steps
