"""Times at which the flow is followed: steps that suit every parameterisation.

An error delta of a network is an error of the denoiser's mean of delta sigma / alpha if it says eps, and of delta if
it says x0. In the first case the flow's slope grows as 1 / l near the noise, l its clock; in log-SNR it is smooth.
But log-SNR is infinite where alpha = 0, where a network may well say x0 or v. So steps are even in

    u = asinh(alpha / (c sigma)),

which is log-SNR / 2 but for a constant while alpha / sigma > c, and the clock over c below. c is alpha / sigma at the
first time, 1e-2 at most: noise alone costs a network of eps no accuracy, and one of x0 few steps.
"""

import numpy as np

from diffusion_jax import schedules
from diffusion_jax.errors import InputError
from diffusion_jax.schedules import Schedule

SOFTEST = 1e-2  # the largest c


def clock(schedule: Schedule, t) -> np.ndarray:
    """asinh(alpha / sigma) at times t > 0 (NumPy): 0 for noise alone, half the log-SNR plus log 2 near the data."""
    return np.arcsinh(schedule.alpha(t) / schedule.sigma(t))


def softness(schedule: Schedule, first: float = 1.0) -> float:
    """c of a grid that starts at `first`."""
    ratio = float(schedule.alpha(np.float64(first)) / schedule.sigma(np.float64(first)))
    return min(ratio, SOFTEST) or SOFTEST


def flow_times(schedule: Schedule, steps: int, level: float = 1e-3, first: float = 1.0) -> np.ndarray:
    """Times from `first` down to the noise level sigma / alpha = `level`, even in u; float64 [steps + 1].

    For schedules known at every t. Take first < 1 where a network says nothing at alpha = 0, as of eps.

    Raises:
      InputError: no steps, or a level that the schedule does not pass below `first`.
    """
    if steps < 1 or not level > 0:
        raise InputError(f"a grid takes steps >= 1 and a noise level > 0, not {steps} and {level}")
    soft = softness(schedule, first)
    start, end = np.arcsinh(np.sinh(clock(schedule, np.float64(first))) / soft), np.arcsinh(1 / (level * soft))
    if not end > start:
        raise InputError(f"the noise at t = {first:g} is below the level {level:g}; take a smaller level")
    even = np.linspace(start, end, steps + 1)[1:]
    return np.concatenate([[first], times_at(schedule, np.arcsinh(soft * np.sinh(even)))])


def table_times(schedule: Schedule, num: int, steps: int) -> np.ndarray:
    """Of a table of `num` betas, the entries nearest to times even in u, from the last down to the first.

    At most steps + 1 times: some are nearest twice. They end at t = 1 / num whatever the steps, so all densities of a
    table are of data at its first noise level. For `HEUN`.

    Raises:
      InputError: a number of steps outside 1, ..., num - 1.
    """
    if not 1 <= steps < num:
        raise InputError(f"a flow on a table of {num} takes 1, ..., {num - 1} steps, not {steps}")
    entries = np.arange(1, num + 1) / num
    u = np.arcsinh(np.sinh(clock(schedule, entries)) / softness(schedule))
    even = np.linspace(u[0], u[-1], steps + 1)
    nearest = np.abs(u - even[:, None]).argmin(axis=1)
    return entries[np.unique(nearest)][::-1]


def times_at(schedule: Schedule, value) -> np.ndarray:
    """The times of clock `value`."""
    with np.errstate(divide="ignore"):
        return schedules.inverse_log_snr(schedule, 2 * np.log(np.sinh(value)))
