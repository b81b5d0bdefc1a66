"""Noise schedules: how much of the data is left at time t.

Time runs from t = 0 (clean data) to t = 1 (noise), and x_t = alpha(t) x0 + sigma(t) eps. The schedules here
are *variance preserving*, alpha^2 + sigma^2 = 1; alpha^2 is the papers' alpha-bar. A table of betas (DDPM's
T = 1000) is a schedule that is known at t = i / T only, i = 0, ..., T.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.arrays import namespace
from diffusion_jax.errors import InputError


class Schedule(NamedTuple):
    """Signal and noise as functions of time.

    Both take t in [0, 1], a number or an array of any shape, and return an array of that shape: float64
    for NumPy times, JAX's default float for JAX times. alpha(0) = 1 and sigma(0) = 0.
    """

    alpha: Callable
    sigma: Callable


def log_snr(schedule: Schedule, t):
    """log(alpha^2 / sigma^2) at t in (0, 1] (VDM's -gamma, Kingma et al. 2021); +inf at t = 0."""
    xp = namespace(t)
    with np.errstate(divide="ignore"):
        return 2 * (xp.log(schedule.alpha(t)) - xp.log(schedule.sigma(t)))


# ---- Tables of betas: float64 [T], beta_1 first.


def linear_betas(num: int = 1000, start: float = 1e-4, end: float = 0.02) -> np.ndarray:
    """Equally spaced betas, float64 [num] (DDPM, Ho et al. 2020, section 4)."""
    return _checked(np.linspace(start, end, num, dtype=np.float64))


def quadratic_betas(num: int = 1000, start: float = 1e-4, end: float = 0.02) -> np.ndarray:
    """Betas whose square roots are equally spaced, float64 [num] ("quad" in DDPM's code)."""
    return _checked(np.linspace(start**0.5, end**0.5, num, dtype=np.float64) ** 2)


def constant_betas(num: int = 1000, beta: float = 0.02) -> np.ndarray:
    """The same beta at every step, float64 [num]."""
    return _checked(np.full(num, beta, dtype=np.float64))


def sigmoid_betas(num: int = 1000, start: float = 1e-4, end: float = 0.02) -> np.ndarray:
    """Betas along a logistic curve over [-6, 6], float64 [num] (GeoDiff, Xu et al. 2022)."""
    return _checked(start + (end - start) / (1 + np.exp(-np.linspace(-6, 6, num, dtype=np.float64))))


def cosine_betas(num: int = 1000, offset: float = 0.008, largest: float = 0.999) -> np.ndarray:
    """Betas of alpha_bar(t) = cos^2((t + offset) / (1 + offset) pi / 2), clipped at `largest`, float64 [num].

    Improved DDPM (Nichol & Dhariwal 2021), equation 17. Clipping ends the chain at a little signal instead
    of none; alpha_bar is recomputed from the clipped betas, as in the official code.
    """
    alpha_bar = np.cos((np.arange(num + 1) / num + offset) / (1 + offset) * np.pi / 2) ** 2
    return _checked(np.minimum(1 - alpha_bar[1:] / alpha_bar[:-1], largest))


def from_betas(betas) -> Schedule:
    """The schedule of a table of betas [T]: alpha(i / T)^2 = prod_{j <= i} (1 - beta_j), DDPM equation 4.

    Times are looked up, not interpolated. NumPy times must be multiples of 1 / T (`InputError` otherwise);
    traced times are rounded to the nearest.
    """
    betas = _checked(betas)
    # log1p and expm1 keep sigma exact where beta is small: sigma(1 / T)^2 is 1e-4, alpha^2 is 0.9999.
    log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
    return Schedule(
        alpha=_lookup(np.exp(0.5 * log_alpha_bar)),
        sigma=_lookup(np.sqrt(-np.expm1(log_alpha_bar))),
    )


def _lookup(table: np.ndarray) -> Callable:
    num = len(table) - 1

    def at(t):
        if isinstance(t, jax.Array):
            return jnp.asarray(table)[jnp.rint(t * num).astype(jnp.int32)]
        position = np.asarray(t, np.float64) * num
        index = np.rint(position)
        on = (np.abs(position - index) < 1e-6 * num) & (index >= 0) & (index <= num)
        if not np.all(on):
            bad = np.ravel(t)[np.ravel(~on)][0]
            raise InputError(f"t = {bad:g} is not on the schedule's table: use i / {num}, i = 0, ..., {num}")
        return table[index.astype(int)]

    return at


def _checked(betas) -> np.ndarray:
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or len(betas) == 0:
        raise InputError(f"betas must be a vector with at least one entry, not of shape {betas.shape}")
    if not ((betas > 0) & (betas < 1)).all():
        bad = betas[~((betas > 0) & (betas < 1))][0]
        raise InputError(f"betas must lie strictly between 0 and 1, found {bad:g}")
    return betas
