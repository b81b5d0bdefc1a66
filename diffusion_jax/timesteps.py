"""Grids of times that samplers walk down.

A grid is a float64 NumPy vector from the first time down to 0, one entry more than there are steps.
"""

import numpy as np

from diffusion_jax import schedules
from diffusion_jax.errors import InputError
from diffusion_jax.schedules import Schedule


def uniform(steps: int, num: int) -> np.ndarray:
    """`steps` equal steps from t = 1 to 0 on a table of `num` entries, rounded to it; [steps + 1].

    DDIM's *trailing* spacing (Lin et al. 2024, table 2). With steps = num it is the whole chain, DDPM's Algorithm 2.
    """
    _check_steps(steps, num)
    return np.rint(np.linspace(num, 0, steps + 1)) / num


def leading(steps: int, num: int) -> np.ndarray:
    """DDIM's published spacing: the network's indices 0, c, 2c, ... with c = num // steps; [steps + 1].

    (Song et al. 2021, appendix D.2, "linear".) The chain starts at the largest of them, a little below
    t = 1, and ends at t = 0.
    """
    _check_steps(steps, num)
    index = np.arange(steps)[::-1] * (num // steps)
    return np.append(index + 1.0, 0.0) / num


def quadratic(steps: int, num: int) -> np.ndarray:
    """DDIM's other published spacing: indices floor(c i^2), finer near the data; [steps + 1].

    (Song et al. 2021, appendix D.2, "quadratic".) The chain starts at 0.8 num. Where the published indices
    coincide, near the data, they are the first integers instead. At most 0.4 num steps.
    """
    _check_steps(steps, num)
    if steps > 0.4 * num:
        raise InputError(f"{steps} quadratic steps coincide on a table of {num}; take at most {int(0.4 * num)}")
    index = np.maximum(np.floor(np.linspace(0, (0.8 * num) ** 0.5, steps) ** 2), np.arange(steps))
    return np.append(index[::-1] + 1, 0.0) / num


def respaced(steps: int, num: int) -> np.ndarray:
    """Improved DDPM's spacing: equal steps between the table's first and last index, rounded; [steps + 1].

    (Nichol & Dhariwal 2021, section 4.)
    """
    _check_steps(steps, num)
    index = np.rint(np.linspace(num - 1, 0, steps)) if steps > 1 else np.array([0.0])
    return np.append(index + 1, 0.0) / num


def linear(steps: int, first: float = 1.0) -> np.ndarray:
    """`steps` equal steps from `first` to 0, for schedules known at every t; [steps + 1]."""
    return np.linspace(first, 0.0, steps + 1)


def log_snr(schedule: Schedule, steps: int, first: float = 1.0, last: float = 1e-3) -> np.ndarray:
    """Steps of equal log-SNR from t = `first` to `last` (where it is finite), and one more to 0; [steps + 1].

    (DPM-Solver, Lu et al. 2022, section 3.4.)
    """
    ends = schedules.log_snr(schedule, np.array([first, last]))
    if not np.isfinite(ends).all() or not 0 < last < first:
        raise InputError(f"log-SNR must be finite at first = {first} and last = {last}, and first > last > 0")
    inner = schedules.inverse_log_snr(schedule, np.linspace(*ends, steps))
    return np.concatenate([[first], inner[1:-1], [last], [0.0]]) if steps > 1 else np.array([first, 0.0])


def karras(
    schedule: Schedule, steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> np.ndarray:
    """Noise levels sigma / alpha with equal steps in sigma^(1 / rho), and one more to 0; [steps + 1].

    (Karras et al. 2022, equation 5.) Levels that the schedule does not have are an `InputError`.
    """
    ramp = np.linspace(sigma_max ** (1 / rho), sigma_min ** (1 / rho), steps)
    wanted = -2 * np.log(ramp**rho)
    if wanted[0] < schedules.log_snr(schedule, np.array(1.0)) - 1e-9:
        raise InputError(f"the schedule never reaches the noise level {sigma_max:g}; take a smaller sigma_max")
    return np.append(schedules.inverse_log_snr(schedule, wanted), 0.0)


def check_grid(times) -> np.ndarray:
    """`times` as a float64 vector, or `InputError` unless it falls strictly inside [0, 1]."""
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or len(times) < 2:
        raise InputError(f"a grid of times is a vector of at least two, not of shape {times.shape}")
    if not (np.diff(times) < 0).all() or times[0] > 1 or times[-1] < 0:
        raise InputError(f"a grid of times must fall strictly and stay in [0, 1], not {times}")
    return times


def _check_steps(steps: int, num: int):
    if not 1 <= steps <= num:
        raise InputError(f"the number of sampling steps must lie in 1, ..., {num}, not {steps}")
