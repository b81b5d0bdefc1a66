"""Published schedulers of flows, x_t = (1 - t) x0 + t eps, whose times are shifted towards noise."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import parameterizations, processes, samplers, schedules
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.pretrained.published import Values
from diffusion_jax.pretrained.schedulers import tables
from diffusion_jax.pretrained.schedulers.chains import Sampling, as_it_is, bounds_of
from diffusion_jax.pretrained.schedulers.curves import CURVES, KINDS, curve

FLOW = CURVES | {
    "num_train_timesteps": 1000,
    "shift": 1.0,
    "shift_terminal": None,
    "stochastic_sampling": False,
    "use_dynamic_shifting": False,
    # Of dynamic shifting.
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
    "time_shift_type": "exponential",
}
ROUNDING = 5e-4  # in float32 a whole number of entries may come out a little below
SOLVER = {"use_flow_sigmas": False, "flow_shift": 1.0, "time_shift_type": "exponential"}  # of DPM-Solver's kin


def flow(config: Mapping[str, Any]) -> Sampling:
    """FlowMatchEulerDiscreteScheduler: x_t = (1 - t) x0 + t eps by Euler's method, its times shifted towards noise.

    The times are shifted twice below the first, for those that are spaced end at the shifted 1 / T.
    """
    values = Values(config, FLOW, "FlowMatchEulerDiscreteScheduler")
    num, shift = values.integer("num_train_timesteps"), values.number("shift", 1e-6, 1e6)
    if values.only("use_dynamic_shifting", False, True):
        values.refuse("use_dynamic_shifting", True, "it depends on the images' size, which only a pipeline knows")
    terminal = terminal_of(values)
    bent = curve(values)

    def grid(steps: int) -> np.ndarray:
        tables.check_steps(steps, num)
        times = _shifted(np.linspace(1.0, _shifted(1 / num, shift), steps), shift)
        if steps > 1:
            times = _stretched(times, terminal)
        if bent:
            times = bent(times[0], times[-1], steps)
        return np.append(np.minimum(times, 1.0), 0.0)

    schedule = schedules.flow()
    parameterization = parameterizations.velocity(schedule, lambda t: jnp.asarray(t) * num)
    process, sampler = processes.gaussian(schedule, processes.ddim(0.0)), samplers.euler(schedule)
    if values.only("stochastic_sampling", False, True):
        process = processes.gaussian(schedule, processes.renoise)
        sampler = samplers.ancestral(process)
    return Sampling(schedule, parameterization, process, (), as_it_is, sampler, grid, own=())


# ---- DPM-Solver's kin, with use_flow_sigmas.

Spaced: TypeAlias = Callable[[int, int, float], np.ndarray]  # `(steps, num, shift) -> times [steps]`, falling


def solver(values: Values, last: int, make: Callable[[Schedule], samplers.Sampler], spaced: Spaced) -> Sampling:
    """Their chains of a flow, whose networks say a velocity and are told the time's whole thousandths, cut off.

    Args:
      values: of the config.
      last: as of `tables.by_log_snr`.
      make: `schedule -> sampler`.
      spaced: `(steps, num, shift) -> times [steps]`, falling: `from_the_top` or `below_the_top`.
    """
    values.only("prediction_type", "flow_prediction")
    bent = [name for name in KINDS if values.values.get(name)]
    if bent:
        values.refuse(bent[0], True, "with use_flow_sigmas diffusers takes its levels for times")
    if last:
        values.refuse("final_sigmas_type", "sigma_min", "with use_flow_sigmas that is of another kind of noise")
    num, shift = values.integer("num_train_timesteps"), values.number("flow_shift", 1e-6, 1e6)

    def grid(steps: int) -> np.ndarray:
        tables.check_steps(steps, num)
        times = spaced(steps, num, shift)
        if (np.floor(times * num) != np.floor(times * num + ROUNDING)).any():
            raise InputError(f"{steps} steps: diffusers cuts a time off, and rounding decides to what; take others")
        return np.append(times, 0.0)

    def prior(key, shape, t=1.0):
        return rng.flat(jax.random.normal, key, shape)

    schedule, bounds = schedules.flow(), bounds_of(values)
    parameterization = parameterizations.velocity(schedule, lambda t: jnp.floor(jnp.asarray(t) * num + ROUNDING))
    process = processes.gaussian(schedule)._replace(prior=prior)
    return Sampling(schedule, parameterization, process, bounds, as_it_is, make(schedule), grid, own=bounds)


def below_the_top(steps: int, num: int, shift: float) -> np.ndarray:
    """Equal steps from 1 - 1 / num down, shifted; none of the last, at 0."""
    return np.flip(_shifted(1 - np.linspace(1, 1 / num, steps + 1), shift))[:-1]


def from_the_top(terminal: float | None) -> Spaced:
    """Equal steps from 1 to 1 / num, shifted, and stretched to end at `terminal`; the first a millionth below 1."""

    def spaced(steps: int, num: int, shift: float) -> np.ndarray:
        times = _stretched(_shifted(np.linspace(1, 1 / num, steps + 1)[:-1], shift), terminal)
        return np.append(min(times[0], 1 - 1e-6), times[1:])

    return spaced


def _shifted(t, shift: float):
    return shift * t / (1 + (shift - 1) * t)


def terminal_of(values: Values) -> float | None:
    return None if values["shift_terminal"] is None else values.number("shift_terminal", 0.0, 0.999)


def _stretched(times: np.ndarray, terminal: float | None) -> np.ndarray:
    """The times such that the last is `terminal`; None or 0 for as they are."""
    return 1 - (1 - times) * (1 - terminal) / (1 - times[-1]) if terminal else times
