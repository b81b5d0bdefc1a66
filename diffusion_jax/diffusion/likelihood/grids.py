"""Times at which the flow is followed: steps that suit every parameterisation.

An error delta of what a network says is an error of the denoiser's mean of delta sigma / alpha where it says eps, and
of delta where it says x0. So for eps the flow's slope grows like 1 / l near the noise, in its clock l: steps that are
even in the clock are too long there, and in log-SNR it is smooth. But log-SNR is infinite where alpha = 0, where a
network may well say x0 or v. So steps are even in

    u = asinh(alpha / (c sigma)),

which is log-SNR / 2 but for a constant while alpha / sigma > c, and the clock over c below. c is alpha / sigma at the
first time, 1e-2 at most: noise alone costs a network of eps no accuracy, and one of x0 few steps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Time
from diffusion_jax.diffusion import schedules
from diffusion_jax.diffusion.schedules import Schedule

SOFTEST = 1e-2  # the largest c
LEAP = 1.6  # of alpha / sigma from one entry of a table to the next, the largest at the noisy end
KNOWN = 4096  # steps of the table from which times between are read


def even_clock(schedule: Schedule, t: Time, soft: float) -> np.ndarray:
    """u = asinh(alpha / (c sigma)) at times t > 0 (NumPy), c = `soft`."""
    return np.arcsinh(schedule.alpha(t) / (soft * schedule.sigma(t)))


def clock(schedule: Schedule, t: Time) -> np.ndarray:
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
    start, end = even_clock(schedule, np.float64(first), soft), np.arcsinh(1 / (level * soft))
    if not end > start:
        raise InputError(f"the noise at t = {first:g} is below the level {level:g}; take a smaller level")
    even = np.linspace(start, end, steps + 1)[1:]
    return np.concatenate([[first], times_at(schedule, np.arcsinh(soft * np.sinh(even)))])


def table_times(schedule: Schedule, num: int, steps: int) -> np.ndarray:
    """Of a table of `num` betas, the entries nearest to times even in u, from nearly the last down to the first.

    At most steps + 1 times: some are nearest twice. They end at t = 1 / num whatever the steps, so all densities of a
    table are of data at its first noise level. Where the last entries are far apart, as those of a clipped cosine or
    without any signal, no steps between them follow the flow of a network that says eps: the walk begins at the
    noisiest entry whose alpha / sigma is within a factor of 1.6 of the next. What the data still says there, about
    (alpha / sigma)^2 / 2 nats an entry, is 5e-6 for the cosine of 1000. For `HEUN`.

    Raises:
      InputError: a number of steps outside 1, ..., num - 1.
    """
    if not 1 <= steps < num:
        raise InputError(f"a flow on a table of {num} takes 1, ..., {num - 1} steps, not {steps}")
    entries = np.arange(1, num + 1) / num
    ratio = schedule.alpha(entries) / schedule.sigma(entries)
    led_to = np.flatnonzero(ratio[:-1] <= LEAP * ratio[1:])
    entries = entries[: led_to[-1] + 2] if len(led_to) else entries
    u = even_clock(schedule, entries, softness(schedule, entries[-1]))
    even = np.linspace(u[0], u[-1], steps + 1)
    nearest = np.abs(u - even[:, None]).argmin(axis=1)
    return entries[np.unique(nearest)][::-1]


def times_at(schedule: Schedule, value: ArrayLike) -> np.ndarray:
    """The times of clock `value`."""
    with np.errstate(divide="ignore"):
        return schedules.inverse_log_snr(schedule, 2 * np.log(np.sinh(value)))


def times_between(schedule: Schedule, soft: float, low: float, high: float) -> Callable[[jax.Array], jax.Array]:
    """`u -> t` for traced u from `low` to `high`, any shape: cubics through a table of float64, rounded once.

    Right to about 1e-7 of t in float32, and to 1e-10 in float64, for schedules that are smooth.

    Raises:
      InputError: a table of betas.
    """
    try:
        known = times_at(schedule, np.arcsinh(soft * np.sinh(np.linspace(low, high, KNOWN + 1))))
    except InputError:
        raise InputError("a table of betas has no times between its own: walk a grid of them, with HEUN") from None

    def at(u):
        place = (u - low) * (KNOWN / (high - low))
        left = jnp.clip(jnp.floor(place), 1, KNOWN - 2)
        p, entry = place - left, left.astype(jnp.int32)
        weights = (
            -p * (p - 1) * (p - 2) / 6,
            (p + 1) * (p - 1) * (p - 2) / 2,
            -(p + 1) * p * (p - 2) / 2,
            (p + 1) * p * (p - 1) / 6,
        )
        table = jnp.asarray(known, u.dtype)
        return sum(weight * table[entry + offset] for offset, weight in enumerate(weights, -1))

    return at
