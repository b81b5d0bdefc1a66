"""Grids of times that samplers walk down.

A grid is a float64 NumPy vector from the first time down to 0, one entry more than there are steps.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import schedules
from diffusion_jax.diffusion.schedules import Schedule


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

    Raises:
      InputError: the chain would start far below t = 1 (`check_leading`).
    """
    _check_steps(steps, num)
    check_leading(steps, num)
    index = np.arange(steps)[::-1] * (num // steps)
    return np.append(index + 1.0, 0.0) / num


def check_leading(steps: int, num: int, unused: int = 0):
    """Raise `InputError`, with the nearest numbers that fit, where `leading` would not start where the prior is.

    Where `steps` does not divide `num`, num - c steps entries are left out at the noisy end, beside the c - 1 that
    the last stride always leaves out: with 501 of 1000 steps half of the table. At most a twentieth may be. A single
    step would look at index 0, where there is the least noise of all.

    Args:
      steps: how many are walked.
      num: entries of the table.
      unused: further steps of the same spacing that are not walked: the last, near the data.
    """
    spaced, fit = steps + unused, _fit_to_lead(num)
    if spaced not in fit:
        raise InputError(
            f"{steps} leading steps would start at entry {(spaced - 1) * (num // spaced) + 1} of {num}, not where "
            f"all is noise; take {_nearest(steps, fit - unused)}"
        )


def leading_steps(most: int, num: int) -> int:
    """The largest number up to `most` (>= 2) of steps that `leading` takes."""
    fit = _fit_to_lead(num)
    return int(fit[fit <= most][-1])


def _fit_to_lead(num: int) -> np.ndarray:
    steps = np.arange(min(num, 2), num + 1)
    return steps[num % steps <= num / 20]


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

    (Nichol & Dhariwal 2021, section 4.) It is `sections` of one section. A single step looks at the first index.
    """
    _check_steps(steps, num)
    return sections((steps,), num)


def sections(counts: Sequence[int], num: int) -> np.ndarray:
    """The table cut into as many sections as there are `counts`, each spaced as `respaced`; [sum of counts + 1].

    Improved DDPM's `timestep_respacing`: "10,15,20" is (10, 15, 20), 10 steps in the section nearest to the data.
    Sections are of equal size; where they cannot be, those near the data have one entry more.

    Raises:
      InputError: unless every count lies between 0 and its section's size, and at least one is above 0.
    """
    counts = list(counts)
    sizes = [num // len(counts) + (i < num % len(counts)) for i in range(len(counts))]
    cuts = np.cumsum([0, *sizes])
    if not any(counts) or not all(0 <= count <= size for count, size in zip(counts, sizes, strict=True)):
        sections, most = ",".join(map(str, counts)), ",".join(map(str, sizes))
        raise InputError(f"the steps of sections {sections!r} must be at least 1 in all and at most {most} of {num}")
    index = np.concatenate([cut + _spread(n, size) for cut, n, size in zip(cuts, counts, sizes, strict=False)])
    return np.append(index[::-1] + 1, 0.0) / num


def listed(indices: Sequence[int], num: int) -> np.ndarray:
    """The network's `indices` as they are given, of 0, ..., num - 1 and falling, and t = 0; [len(indices) + 1].

    DeepFloyd IF's tuned chains, say: 999, 800, 799, 600, ... It starts at the first of them, from the prior there.

    Raises:
      InputError: there are none, one is no integer or outside of the table, or they do not fall strictly.
    """
    found = list(indices)
    if not found or not all(isinstance(index, int | np.integer) and not isinstance(index, bool) for index in found):
        raise InputError(f"a list of integers is expected for a grid, not {str(indices)[:100]}")
    for index, after in zip(found, [*found[1:], -1], strict=True):
        if not 0 <= index < num:
            raise InputError(f"index {index} of a grid is not one of 0, ..., {num - 1}")
        if after >= index:
            raise InputError(f"indices of a grid fall from noise to data; {after} comes after {index}")
    return np.append(np.array(found) + 1.0, 0.0) / num


def strided(steps: int, num: int) -> np.ndarray:
    """Improved DDPM's "ddimN": indices 0, c, 2c, ... with the least c for which they are N; [steps + 1].

    (Nichol & Dhariwal 2021, section 4; DDIM's own spacing, which always begins less than c below the top.)

    Raises:
      InputError: there is no such c; the message has the nearest numbers of steps that fit.
    """
    _check_steps(steps, num)
    lengths = -(-num // np.arange(1, max(num, 2)))  # of the strides 1, ..., num - 1
    stride = np.argmax(lengths == steps) + 1
    if lengths[stride - 1] != steps:
        raise InputError(f"no stride makes {steps} steps of {num}; take {_nearest(steps, lengths)}")
    return np.append(np.arange(0, num, stride)[::-1] + 1.0, 0.0) / num


def linear(steps: int, first: float = 1.0) -> np.ndarray:
    """`steps` equal steps from `first` to 0, for schedules known at every t; [steps + 1].

    Raises:
      InputError: unless steps >= 1 and 0 < first <= 1.
    """
    _check_positive(steps)
    if not 0 < first <= 1:
        raise InputError(f"a grid starts at a time in (0, 1], not at {first}")
    return np.linspace(first, 0.0, steps + 1)


def log_snr(schedule: Schedule, steps: int, first: float = 1.0, last: float = 1e-3) -> np.ndarray:
    """Steps of equal log-SNR from t = `first` to `last` (where it is finite), and one more to 0; [steps + 1].

    (DPM-Solver, Lu et al. 2022, section 3.4.)
    """
    _check_positive(steps)
    ends = schedules.log_snr(schedule, np.array([first, last]))
    if not np.isfinite(ends).all() or not 0 < last < first:
        raise InputError(f"log-SNR must be finite at first = {first} and last = {last}, and first > last > 0")
    inner = schedules.inverse_log_snr(schedule, np.linspace(ends[0], ends[1], steps))
    return np.concatenate([[first], inner[1:-1], [last], [0.0]]) if steps > 1 else np.array([first, 0.0])


def karras(
    schedule: Schedule, steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0
) -> np.ndarray:
    """Noise levels sigma / alpha with equal steps in sigma^(1 / rho), and one more to 0; [steps + 1].

    (Karras et al. 2022, equation 5.)

    Raises:
      InputError: unless 0 < sigma_min < sigma_max and rho > 0, or for a level that the schedule does not have.
    """
    _check_levels(steps, sigma_min, sigma_max, rho)
    return _at_levels(schedule, karras_levels(steps, sigma_min, sigma_max, rho), sigma_max)


def karras_levels(num: int, low: float, high: float, rho: float = 7.0) -> np.ndarray:
    """N levels from `high` down to `low` in equal steps of level^(1 / rho), float64 [N]."""
    return np.linspace(high ** (1 / rho), low ** (1 / rho), num) ** rho


def polyexponential(
    schedule: Schedule, steps: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 1.0
) -> np.ndarray:
    """Noise levels sigma / alpha whose logarithm falls as the power `rho` of a straight line, and 0; [steps + 1].

    (k-diffusion's get_sigmas_polyexponential; rho = 1 is its get_sigmas_exponential.) Errors as of `karras`.
    """
    _check_levels(steps, sigma_min, sigma_max, rho)
    ramp = np.linspace(1, 0, steps) ** rho
    return _at_levels(schedule, sigma_min * (sigma_max / sigma_min) ** ramp, sigma_max)


def check_grid(times: ArrayLike) -> np.ndarray:
    """`times` as a float64 vector, or `InputError` unless it falls strictly inside [0, 1]."""
    times = np.asarray(times, np.float64)
    if times.ndim != 1 or len(times) < 2:
        raise InputError(f"a grid of times is a vector of at least two, not of shape {times.shape}")
    if not (np.diff(times) < 0).all() or times[0] > 1 or times[-1] < 0:
        raise InputError(f"a grid of times must fall strictly and stay in [0, 1], not {times}")
    return times


def _spread(steps: int, size: int) -> np.ndarray:
    """`steps` indices from 0 to size - 1; a single one is 0.

    The stride is added up and not multiplied, for so the original does: at ties, which way a sum is rounded depends
    on its last bit.
    """
    stride = (size - 1) / (steps - 1) if steps > 1 else 1.0
    return np.rint(np.cumsum(np.append(0.0, np.full(max(steps - 1, 0), stride))))[:steps]


def _nearest(steps: int, fit) -> str:
    """The numbers among `fit` next to `steps` on both sides, in words."""
    fit = np.unique(fit)
    near = [*fit[fit < steps][-1:], *fit[fit > steps][:1]]
    return " or ".join(map(str, near))


def _check_levels(steps: int, sigma_min: float, sigma_max: float, rho: float):
    if not (0 < sigma_min < sigma_max < np.inf and 0 < rho < np.inf):
        raise InputError(
            f"noise levels need 0 < sigma_min < sigma_max and rho > 0, not {sigma_min:g}, {sigma_max:g} and {rho:g}"
        )
    _check_positive(steps)


def _at_levels(schedule: Schedule, levels: np.ndarray, sigma_max: float) -> np.ndarray:
    """The grid of noise levels, and one more to 0."""
    wanted = -2 * np.log(levels)
    if wanted[0] < schedules.log_snr(schedule, np.array(1.0)) - 1e-9:
        raise InputError(f"the schedule never reaches the noise level {sigma_max:g}; take a smaller sigma_max")
    return np.append(schedules.inverse_log_snr(schedule, wanted), 0.0)


def _check_positive(steps: int):
    if not steps >= 1:
        raise InputError(f"the number of sampling steps must be at least 1, not {steps}")


def _check_steps(steps: int, num: int):
    if not 1 <= steps <= num:
        raise InputError(f"the number of sampling steps must lie in 1, ..., {num}, not {steps}")
