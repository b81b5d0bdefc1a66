"""Tables of betas as published schedulers have them, and the times at which their chains look."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Grid, GridOfIndices, OfTime
from diffusion_jax.diffusion import parameterizations, schedules, timesteps
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.pretrained.published import Values
from diffusion_jax.pretrained.schedulers.curves import KINDS, curve

TABLE = {
    "num_train_timesteps": 1000,
    "beta_start": 0.0001,
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "trained_betas": None,
    "prediction_type": "epsilon",
    "timestep_spacing": "leading",
    "steps_offset": 0,
    "skip_prk_steps": False,  # of PNDM's own steps
    "variance_type": None,  # of DDPM's
}
ZERO_SNR = {"rescale_betas_zero_snr": False}


class Walk(NamedTuple):
    """A table, and where a chain looks at it.

    Attributes:
      schedule: alpha and sigma, known wherever the chain looks.
      time: of t, what the network is told there.
      grid: `steps -> times`, falling to where the chain ends.
      num: how many entries the table has.
      listed: `indices -> times`, to where the chain ends; None where its levels go by a curve.
    """

    schedule: Schedule
    time: OfTime
    grid: Grid
    num: int
    listed: GridOfIndices | None


# ---- The table.


def betas(values: Values) -> np.ndarray:
    """Float64 [num_train_timesteps]."""
    num, given = values.integer("num_train_timesteps"), values["trained_betas"]
    if given is not None:
        if type(given) is not list or len(given) != num or not all(map(_is_beta, given)):
            values.refuse("trained_betas", given, f"a list of num_train_timesteps = {num} numbers is expected")
        table = np.asarray(given, np.float64)
    else:
        start, end = values.number("beta_start", 0.0, 1.0), values.number("beta_end", 0.0, 1.0)
        kinds = {
            "linear": lambda: schedules.linear_betas(num, start, end),
            "scaled_linear": lambda: schedules.quadratic_betas(num, start, end),
            "squaredcos_cap_v2": lambda: schedules.cosine_betas(num),
            "sigmoid": lambda: schedules.sigmoid_betas(num, start, end),
        }
        table = kinds[values.only("beta_schedule", *kinds)]()
    return schedules.zero_terminal_snr(table) if _zero_snr(values) else table


def _is_beta(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def finite_betas(values: Values) -> np.ndarray:
    """`betas`, but where nothing would be left of the data 2^-12 of it is, so that noise levels are finite."""
    table = betas(values)
    if _zero_snr(values):
        before, end = np.prod(1 - table[:-1]), 2.0**-24
        if before <= end:
            values.refuse("rescale_betas_zero_snr", True, f"alpha^2 rises from {before:.1g} to {end:.1g} at the end")
        table[-1] = 1 - end / before
    return table


def _zero_snr(values: Values) -> bool:
    if "rescale_betas_zero_snr" not in values.values or not values.only("rescale_betas_zero_snr", False, True):
        return False
    if values["prediction_type"] == "epsilon":
        values.refuse("rescale_betas_zero_snr", True, "eps says nothing of x0 where nothing is left of it")
    return True


# ---- Indices, from 0 as diffusers counts them.


def indices(values: Values, num: int, unused: int = 0, top: int | None = None) -> Grid:
    """`steps -> indices`, falling, float64 [steps] (Lin et al. 2024, table 2); fractions where a spacing has them.

    Args:
      values: `timestep_spacing` and `steps_offset`.
      num: entries of the table.
      unused: 1 for solvers that space one step more and leave out the last.
      top: how many of the entries are spaced over, from the clean end; all by default.
    """
    top = num if top is None else top
    offset = values.integer("steps_offset", 0)

    def linspace(steps):
        if steps + unused < 2:
            raise InputError(f"{steps} linspace step would look at index 0, where there is the least noise; take 2")
        return np.linspace(0, top - 1, steps + unused)[::-1][:steps]

    def leading(steps):
        timesteps.check_leading(steps, top, unused)
        return np.arange(steps + unused)[::-1][:steps] * (top // (steps + unused)) + float(offset)

    def trailing(steps):
        return np.rint(np.arange(top, 0, -num / steps)) - 1

    kinds = {"linspace": linspace, "leading": leading, "trailing": trailing}
    spacing = kinds[values.only("timestep_spacing", *kinds)]

    def checked(steps):
        check_steps(steps, num)
        index = spacing(steps)
        if index[0] >= num:
            raise InputError(f"the scheduler's first index is {index[0]:g} of {num}; take fewer than {steps} steps")
        return index

    return checked


def check_steps(steps: int, num: int):
    """Raise `InputError` unless 1 <= steps <= num."""
    if not 1 <= steps <= num:
        raise InputError(f"the number of sampling steps must lie in 1, ..., {num}, not {steps}")


def whole(index: np.ndarray) -> np.ndarray:
    """Indices rounded to entries; `InputError` where two fall on one."""
    index = np.rint(index)
    if not (np.diff(index) < 0).all() or index[-1] < 0:
        raise InputError(f"{len(index)} steps of this spacing fall on the same entries of the table; take fewer")
    return index


def closed(index: np.ndarray, num: int, last: int) -> np.ndarray:
    """The grid of `index`, and on to the table's entry `last`, 0 or 1, unless it is there already."""
    times = (index + 1.0) / num
    return np.append(times, last / num) if times[-1] > (last + 1e-6) / num else times


def _listed(num: int, last: int) -> GridOfIndices:
    """Grids that look at given entries (`timesteps.listed`), and end at the table's entry `last`."""
    return lambda indices: closed(np.rint(timesteps.listed(indices, num)[:-1] * num) - 1, num, last)


# ---- Walks.


def at_entries(values: Values, last: int) -> Walk:
    """Solvers in time: they look at entries of the table, and end at its entry `last`."""
    table = betas(values)
    num = len(table)
    spacing = indices(values, num)
    return Walk(
        schedules.from_betas(table),
        parameterizations.table_index(num),
        lambda steps: closed(whole(spacing(steps)), num, last),
        num,
        _listed(num, last),
    )


def between_entries(
    values: Values, last: int, through: Callable[[np.ndarray], Schedule] = schedules.through_levels
) -> Walk:
    """Euler's kin, in levels v = sigma / alpha: between entries v is interpolated, and the network told fractions.

    With a curve (`curves`) the levels go by it from the first that the spacing has to the last, and times between
    entries are those of log v.

    Args:
      values: of the config.
      last: the entry of the table at which the chain ends, 0 or 1.
      through: what lies between entries for the sampler, where there is no curve.
    """
    table = finite_betas(values)
    num, level = len(table), levels(table)
    spacing, bent = indices(values, num), curve(values)
    through = schedules.through_log_levels if bent else through

    def grid(steps):
        index = spacing(steps)
        at = np.interp(index, np.arange(num), level[1:])
        if bent:
            at = bent(at[0], at[-1], steps)
        return closed(index if through is schedules.through_levels else _index(at, level), num, last)

    return Walk(through(level), lambda t: jnp.asarray(t) * num - 1, grid, num, None if bent else _listed(num, last))


def by_log_snr(values: Values, last: int, idle: str = "", top: int | None = None) -> Walk:
    """DPM-Solver's kin: at entries of the table, one step more being spaced than is made.

    With a curve the levels go by it down the whole table, and the network is told the nearest entry. Their last step
    then has no length where `last` is 1: of those steps the solver's first N - 1 are made.

    Args:
      values: of the config.
      last: the entry of the table at which the chain ends, 0 or 1.
      idle: why a step of no length may not be left out, if it may not.
      top: as of `indices`.
    """
    table = finite_betas(values)
    num, level = len(table), levels(table)
    spacing, bent = indices(values, num, unused=1, top=top), curve(values)
    for name in ("use_exponential_sigmas", "use_beta_sigmas"):
        if values[name]:
            values.refuse(name, True, "diffusers cuts the network's times off, and rounding decides to what")
    if bent and values["beta_schedule"] == "squaredcos_cap_v2":
        _refuse_curve(values, "diffusers cuts the times of this table off to integers")
    if bent and last and idle:
        _refuse_curve(values, idle)

    def straight(steps):
        index = whole(spacing(steps))
        if index[-1] < last:
            raise InputError(f"the last of {steps} steps would be of no length; take fewer")
        return closed(index, num, last)

    def curved(steps):
        check_steps(steps, num)
        if last and steps < 2:
            raise InputError("a single step would be of no length; take at least 2")
        return closed(_index(bent(level[-1], level[1], steps), level), num, last)

    schedule = schedules.through_log_levels(level) if bent else schedules.from_betas(table)
    time = parameterizations.table_index(num)
    return (
        Walk(schedule, time, curved, num, None) if bent else Walk(schedule, time, straight, num, _listed(num, last))
    )


def _refuse_curve(values: Values, remedy: str):
    (name,) = (name for name in KINDS if values.values.get(name))
    values.refuse(name, True, remedy)


def levels(table: np.ndarray) -> np.ndarray:
    """sigma / alpha at i / T, [T + 1], 0 first."""
    with np.errstate(over="ignore"):  # inf, which `schedules.through_levels` refuses
        return np.sqrt(np.expm1(-np.cumsum(np.append(0.0, np.log1p(-table)))))


def _index(level: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Where levels lie in the table of them, by their logarithms; fractions."""
    low, high = table[1], table[-1]
    if level[0] > high * (1 + 1e-6) or level[-1] < low * (1 - 1e-6):
        raise InputError(f"noise levels from {level[0]:g} to {level[-1]:g} leave the table's, {high:g} to {low:g}")
    return np.interp(np.log(level), np.log(table[1:]), np.arange(len(table) - 1))
