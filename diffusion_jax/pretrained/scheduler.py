"""diffusers' scheduler_config.json as parts of ours: the noise, what the network says, and how it is sampled."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax import (
    guidance,
    parameterizations,
    processes,
    rng,
    samplers,
    variances,
)
from diffusion_jax.arrays import expand, namespace
from diffusion_jax.distributions import Gaussian
from diffusion_jax.errors import InputError
from diffusion_jax.parameterizations import Parameterization
from diffusion_jax.pretrained import tables
from diffusion_jax.pretrained.published import Values
from diffusion_jax.pretrained.tables import CURVES, TABLE, ZERO_SNR, Walk
from diffusion_jax.processes import Process
from diffusion_jax.samplers import Sampler, dpm
from diffusion_jax.samplers.pndm import IMPROVED_EULER, NOISE, RUNGE_KUTTA, VELOCITY
from diffusion_jax.schedules import Schedule

NARROWEST = 1e-20  # of a learned variance
PUBLISHED_CURVATURE = 0.5  # of solvers of third order
BOUNDS = {"thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0}
CLIP = {"clip_sample": True, "clip_sample_range": 1.0}

DDPM = TABLE | ZERO_SNR | BOUNDS | CLIP | {"variance_type": "fixed_small"}
DDIM = TABLE | ZERO_SNR | BOUNDS | CLIP | {"set_alpha_to_one": True}
PNDM = TABLE | {"set_alpha_to_one": False}
LINSPACE = TABLE | {"timestep_spacing": "linspace"}
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
DPM = (
    LINSPACE
    | ZERO_SNR
    | BOUNDS
    | CURVES
    | {
        "solver_order": 2,
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "lower_order_final": True,
        "euler_at_final": False,
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
      sampler: the scheduler's, to be used with `own` and then `variance`.
      grid: `steps -> times`, the scheduler's.
      own: `transforms`, or none where the sampler itself bounds x0, as DDIMScheduler's does.
    """

    schedule: Schedule
    parameterization: Parameterization
    process: Process
    transforms: tuple[Callable, ...]
    variance: Callable
    sampler: Sampler
    grid: Callable
    own: tuple[Callable, ...]


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
    known = TABLE | ZERO_SNR
    return tables.betas(Values({k: config[k] for k in known if k in config}, known, "scheduler"))


# ---- The schedulers.


def _ddpm(config) -> Sampling:
    values = Values(config, DDPM, "DDPMScheduler")
    walk = tables.at_entries(values, 0)
    schedule, num = walk.schedule, walk.num
    said, variance = _said(values, walk), variances.posterior(schedule)
    kind = values.only("variance_type", "fixed_small", "fixed_small_log", "fixed_large", "learned_range")
    if kind == "learned_range":
        # Only an image that ends in noise, see below, knows how narrow the last kernel may be.
        said, variance = parameterizations.learned_range(said, schedule, NARROWEST), _as_it_is
    if kind == "fixed_large":
        variance = variances.fixed_large(schedule)
    process = processes.gaussian(schedule)
    ancestral = samplers.ancestral(process)

    def plan(t, s):
        # The chain ends on the kernel's mean at index 0, and in noise at any other.
        return t, t * num < 1.5, process.bridge(t, s)

    return _parts(values, walk, process, ancestral._replace(plan=plan), said)._replace(variance=variance)


def _ddim(config) -> Sampling:
    values = Values(config, DDIM, "DDIMScheduler")
    last = 0 if values.only("set_alpha_to_one", False, True) else 1
    walk = tables.at_entries(values, last)
    bounds = _bounds(values)
    (bound,) = bounds or (_as_it_is,)
    sampler = samplers.ddim(walk.schedule, 0.0, bound)

    def landing(t):
        """Where diffusers has a step from t land: c = T // N entries lower, or at the end."""
        index = np.rint(t * walk.num) - walk.num // len(t)
        return np.where(index >= 1, index, last) / walk.num

    def grid(steps):
        times = walk.grid(steps)
        # A step that moves nothing but bounds x0: the sampler knows where it lands.
        return times if len(times) > steps else np.append(times, 0.0)

    process = processes.gaussian(walk.schedule, processes.ddim(0.0))
    sampler = sampler._replace(plan=lambda t, s, plan=sampler.plan: plan(t, landing(t)))
    return _parts(values, walk, process, sampler)._replace(grid=grid, own=())


def _pndm(config) -> Sampling:
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
    return _parts(values, walk, process, sampler)._replace(grid=grid)


def _euler(config) -> Sampling:
    values = Values(config, EULER, "EulerDiscreteScheduler")
    values.only("interpolation_type", "linear")
    values.only("timestep_type", "discrete")
    last = _last(values)
    walk = tables.between_entries(values, last)
    sampler = samplers.euler(walk.schedule)
    if last:
        # Their images are x / alpha.
        alpha = float(walk.schedule.alpha(last / walk.num))
        sampler = sampler._replace(done=lambda x: x / alpha)
    return _parts(values, walk, _noisy(values, walk), sampler)


def _dpm(config) -> Sampling:
    values = Values(config, DPM, "DPMSolverMultistepScheduler")
    order = values.only("solver_order", 1, 2, 3)
    values.only("lambda_min_clipped", -float("inf"), "-inf", "-Infinity")
    values.only("variance_type", None)
    last, lower = _last(values), values.only("lower_order_final", False, True)
    first_at_last = values.only("euler_at_final", False, True) or not last
    forms = {
        "dpmsolver++": dpm.data(),
        "sde-dpmsolver++": dpm.data(1.0),
        "dpmsolver": dpm.NOISE,
        "sde-dpmsolver": dpm.NOISE_SDE,
    }
    kind = values.only("algorithm_type", *forms)
    if order == 3 and kind.startswith("sde"):
        values.refuse("solver_order", 3, f"of {kind} it is of less than second order in diffusers, by a sign")
    if not last and kind in ("dpmsolver", "sde-dpmsolver"):
        values.refuse("final_sigmas_type", "zero", f"{kind} ends at sigma_min")
    second = {"midpoint": dpm.midpoint, "heun": dpm.exact}
    walk = tables.by_log_snr(values, last)

    def orders(steps):
        found = samplers.at_most(order)(steps)
        short = lower and steps < 15
        ends = np.arange(steps)[::-1]
        found = np.where((ends == 1) & short, np.minimum(found, 2), found)
        return np.where((ends == 0) & (short or first_at_last), 1, found)

    sampler = samplers.dpm_multistep(
        walk.schedule, forms[kind], orders, second[values.only("solver_type", *second)], PUBLISHED_CURVATURE
    )
    return _parts(values, walk, processes.gaussian(walk.schedule), sampler)


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
        tables.check_steps(steps, num)
        share = np.arange(steps) * (num // steps) / max(num - 1, 1)
        root = 1 / values["rho"]
        levels = (high**root + share * (low**root - high**root)) ** values["rho"]
        times = np.clip((levels - low) / (high - low), 0.0, 1.0)
        # All of the steps would end with one at sigma_min, where the estimate is x_t itself.
        return np.append(times[share < 1], 0.0)

    said = consistency(schedule, values["sigma_data"], low)
    return Sampling(schedule, said, process, bounds, _as_it_is, samplers.ancestral(process), grid, own=bounds)


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


def _parts(values: Values, walk: Walk, process: Process, sampler: Sampler, said=None) -> Sampling:
    bounds = _bounds(values)
    said = said or _said(values, walk)
    variance = variances.posterior(walk.schedule)
    return Sampling(walk.schedule, said, process, bounds, variance, sampler, walk.grid, own=bounds)


def _said(values: Values, walk: Walk) -> Parameterization:
    kinds = {
        "epsilon": lambda: parameterizations.eps(walk.schedule, walk.time),
        "sample": lambda: parameterizations.x0(walk.time),
        "v_prediction": lambda: parameterizations.v(walk.schedule, walk.time),
    }
    return kinds[values.only("prediction_type", *kinds)]()


def _noisy(values: Values, walk: Walk) -> Process:
    """Euler's kin begin with v z, but for `leading`: with x = sigma z and not with sqrt(alpha^2 + sigma^2) z."""
    process = processes.gaussian(walk.schedule, processes.ddim(0.0))
    if values["timestep_spacing"] == "leading":
        return process

    def prior(key, shape, t=1.0):
        return walk.schedule.sigma(t) * rng.flat(jax.random.normal, key, shape)

    return process._replace(prior=prior)


def _bounds(values: Values) -> tuple[Callable, ...]:
    if "thresholding" in values.values and values.only("thresholding", False, True):
        return (guidance.dynamic_threshold(values["dynamic_thresholding_ratio"], values["sample_max_value"]),)
    if "clip_sample" in values.values and values.only("clip_sample", False, True):
        bound = values.number("clip_sample_range", 0.0, 1e9)
        return (guidance.clip(-bound, bound),)
    return ()


def _as_it_is(denoise):
    return denoise


def _last(values: Values) -> int:
    return {"zero": 0, "sigma_min": 1}[values.only("final_sigmas_type", "zero", "sigma_min")]
