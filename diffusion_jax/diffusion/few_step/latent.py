"""Latent consistency models (LCM, Luo et al. 2023): consistency distillation on a table, of a guided teacher.

Times are entries i / T of a table of betas; the network is told the index i - 1 (`parameterizations.table_index`).
Neighbours are T / 50 entries apart. The loss is `guided.told(consistency.loss(consistency.solved(teacher,
pairs.euler(schedule)), distance, target)(...), low, high)`, with neighbours on `training_grid`.
"""

from typing import Any

import numpy as np

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import OfTime, Transform
from diffusion_jax.diffusion.parameterizations import Parameterization, gain
from diffusion_jax.diffusion.schedules import Schedule

LARGEST_GAIN = 200.0  # by which an error in what a network says may grow in its x0: 157 at the end of DDPM's table


def skip_and_out(index: Any, scaling: float = 10.0, sigma_data: float = 0.5):
    """(c_skip, c_out) = (s^2 / (u^2 + s^2), u / sqrt(u^2 + s^2)) at u = `scaling` times the network's index.

    A switch rather than a blend: (1, 0) at index 0, and (7e-6, 1) at index 19.
    """
    u = scaling * index
    return sigma_data**2 / (u**2 + sigma_data**2), u / (u**2 + sigma_data**2) ** 0.5


def boundary(time: OfTime, scaling: float = 10.0) -> Transform:
    """The transform of a denoiser to a consistency function, c_skip x_t + c_out x0: x_t itself at index 0.

    Args:
      time: `t -> index` (`parameterizations.table_index`).
      scaling: published schedulers' `timestep_scaling`.
    """

    def transform(denoise):
        def at(x_t, t):
            skip, out = (expand(each, x_t) for each in skip_and_out(time(t), scaling))
            return Gaussian(skip * x_t + out * denoise(x_t, t).mean)

        return at

    return transform


def consistent(base: Parameterization, time: OfTime, scaling: float = 10.0) -> Parameterization:
    """`base` with the `boundary`: what a latent consistency model is trained with."""
    transform = boundary(time, scaling)

    def read(output, x_t, t):
        return transform(lambda x_t, t: base.read(output, x_t, t))(x_t, t)

    return base._replace(read=read)


def entries(parameterization: Parameterization, schedule: Schedule, num: int = 1000, original: int = 50) -> int:
    """How many of the `original` entries of a table of `num`, from its clean end, a student can be asked at.

    All of them, but for the noisiest of a table that ends with almost nothing of the data, such as the cosine table,
    where the network says eps: there its errors would be more than `LARGEST_GAIN` times as large in x0.

    Raises:
      InputError: at none; or there is no such grid, as of `training_grid`.
    """
    stride = _whole_stride(num, original)
    for top in range(original, 0, -1):
        if gain(parameterization, schedule, top * stride / num) <= LARGEST_GAIN:
            return top
    raise InputError(f"what the network says is no x0 within {LARGEST_GAIN:g} times its errors, at any entry")


def training_grid(num: int = 1000, original: int = 50, top: int | None = None) -> np.ndarray:
    """Indices 999, 979, ..., 19 and 0 of a table of `num` entries, as falling times, [top + 1].

    For `stages.neighbours(schedule, lambda points: training_grid(), stages.constant(51))`.

    Args:
      num: entries of the table.
      original: how many of them, evenly from one end to the other, are looked at.
      top: how many of those, from the clean end (`entries`); all by default.

    Raises:
      InputError: more than there are, or as many that the noisiest would not be near the end of the table.
    """
    stride = _whole_stride(num, original)
    chosen = np.arange(original if top is None else top, 0, -1.0) * stride
    return (np.append(chosen, 1.0) if stride > 1 else chosen) / num


def grid(steps: int, num: int = 1000, original: int = 50, top: int | None = None) -> np.ndarray:
    """The grid of a chain of `steps`, evenly among those that were distilled: indices 999, 759, 499, 259 for 4.

    Arguments as of `training_grid`.

    Raises:
      InputError: for more steps than were distilled, or none.
    """
    stride, top = _stride(num, original), original if top is None else top
    if not 1 <= steps <= top:
        raise InputError(f"the number of sampling steps must lie in 1, ..., {top}, not {steps}")
    chosen = top - np.floor(np.linspace(0, top, steps, endpoint=False))
    return np.append(chosen * stride, 0.0) / num


def _stride(num: int, original: int) -> int:
    if not 1 <= original <= num:
        raise InputError(f"of a table of {num} entries between 1 and {num} are distilled, not {original}")
    return num // original


def _whole_stride(num: int, original: int) -> int:
    """Published schedulers walk grids that leave much of the table's noisy end out; no network is trained for one."""
    stride = _stride(num, original)
    if num - original * stride >= stride:
        raise InputError(
            f"{original} entries, {stride} apart, would leave the noisiest {num - original * stride} of a table of "
            f"{num} out; take a number that divides {num}"
        )
    return stride
