"""Noise schedules: how much of the data is left at time t.

Time runs from t = 0 (clean data) to t = 1 (noise), and x_t = alpha(t) x0 + sigma(t) eps. Schedules are known
at every t, except a table of betas (DDPM's T = 1000), which is known at t = i / T, i = 0, ..., T. Where
alpha^2 + sigma^2 = 1 (*variance preserving*, VP), alpha^2 is the papers' alpha-bar.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core.arrays import namespace
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import OfTime, Time


class Schedule(NamedTuple):
    """Signal and noise as functions of time.

    Both take t in [0, 1], a number or an array of any shape, and return an array of that shape: float64
    for NumPy times, JAX's default float for JAX times. alpha(0) = 1 and sigma(0) = 0.
    """

    alpha: OfTime
    sigma: OfTime


def log_snr(schedule: Schedule, t: Time) -> Any:
    """log(alpha^2 / sigma^2) at t in (0, 1] (VDM's -gamma, Kingma et al. 2021); +inf at t = 0."""
    xp = namespace(t)
    with np.errstate(divide="ignore"):
        return 2 * (xp.log(schedule.alpha(t)) - xp.log(schedule.sigma(t)))


def inverse_log_snr(schedule: Schedule, value: ArrayLike) -> np.ndarray:
    """The times at which a schedule's log-SNR is `value` (NumPy, any shape); float64, in [0, 1].

    By bisection: log-SNR falls with t whatever the schedule. Values above log-SNR(0+) give 0, and values
    below log-SNR(1) give 1. For schedules known at every t, not for tables.

    Raises:
      InputError: a value is not a number.
    """
    value = np.asarray(value, np.float64)
    if np.isnan(value).any():
        raise InputError("a log-SNR to look up is not a number (NaN)")
    low, high = np.zeros_like(value), np.ones_like(value)
    for _ in range(80):  # to the last bit, for times down to 1e-9
        middle = (low + high) / 2
        noisier = log_snr(schedule, middle) < value
        low, high = np.where(noisier, low, middle), np.where(noisier, middle, high)
    return (low + high) / 2


# ---- Schedules known at every t.


def vp_linear(beta_min: float = 0.1, beta_max: float = 20.0) -> Schedule:
    """The VP SDE with a rate that grows linearly from `beta_min` to `beta_max` (Song et al. 2021, equation 32)."""
    log_alpha = _log_alpha_linear(beta_min, beta_max)
    return Schedule(
        alpha=lambda t: namespace(t).exp(log_alpha(t)),
        sigma=lambda t: namespace(t).sqrt(-namespace(t).expm1(2 * log_alpha(t))),
    )


def sub_vp(beta_min: float = 0.1, beta_max: float = 20.0) -> Schedule:
    """The sub-VP SDE: alpha of `vp_linear`, sigma = 1 - alpha^2 (Song et al. 2021, section 3.4)."""
    log_alpha = _log_alpha_linear(beta_min, beta_max)
    return Schedule(
        alpha=lambda t: namespace(t).exp(log_alpha(t)),
        sigma=lambda t: -namespace(t).expm1(2 * log_alpha(t)),
    )


def ve(sigma_min: float = 0.01, sigma_max: float = 50.0) -> Schedule:
    """The VE SDE, alpha = 1, sigma^2 = sigma_min^2 ((sigma_max / sigma_min)^2t - 1) (Song et al. 2021, appendix C).

    The SDE started from clean data: sigma(0) = 0, and sigma(1) is sigma_max but for sigma_min. NCSN's table
    sigma_min (sigma_max / sigma_min)^t differs by that as well.
    """
    if not 0 < sigma_min < sigma_max:
        raise InputError(f"the VE schedule needs 0 < sigma_min < sigma_max, not {sigma_min} and {sigma_max}")
    rate = 2 * np.log(sigma_max / sigma_min)
    return Schedule(
        alpha=lambda t: namespace(t).ones_like(namespace(t).asarray(t, float)),
        sigma=lambda t: sigma_min * namespace(t).sqrt(namespace(t).expm1(rate * t)),
    )


def edm(sigma_max: float = 80.0) -> Schedule:
    """Karras et al. 2022: alpha = 1 and sigma is time itself, here in units of `sigma_max`."""
    return Schedule(
        alpha=lambda t: namespace(t).ones_like(namespace(t).asarray(t, float)),
        sigma=lambda t: sigma_max * namespace(t).asarray(t, float),
    )


def cosine() -> Schedule:
    """alpha = cos(pi t / 2), sigma = sin(pi t / 2): Improved DDPM's schedule without offset or clipping; VP."""
    return Schedule(
        # sin of the complement, for cos(pi / 2) is 6e-17 and not 0
        alpha=lambda t: namespace(t).sin(np.pi / 2 * (1 - t)),
        sigma=lambda t: namespace(t).sin(np.pi / 2 * t),
    )


def bounded_cosine(bound: float = 20.0) -> Schedule:
    """`cosine` with its log-SNR kept within +-`bound` on (0, 1]: progressive distillation's (Salimans & Ho 2022).

    alpha and sigma are the cosine and sine of an angle that grows from arctan(exp(-bound / 2)) to its complement. As
    of every schedule t = 0 is clean data: what the bound leaves there, exp(-bound / 2) of noise, is left out.
    """
    least = np.arctan(np.exp(-bound / 2))

    def angle(xp, t):  # from 0 to pi / 2 - least
        return (np.pi / 2 - 2 * least) * xp.asarray(t, float)

    def sigma(t):
        xp = namespace(t)
        return xp.where(xp.asarray(t) > 0, xp.sin(least + angle(xp, t)), 0.0)

    # The complement of the angle is what its cosine is the sine of.
    def alpha(t):
        xp = namespace(t)
        return xp.where(xp.asarray(t) > 0, xp.sin(least + angle(xp, 1 - xp.asarray(t, float))), 1.0)

    return Schedule(alpha, sigma)


def sigmoid(start: float = -3.0, end: float = 3.0, temperature: float = 1.0) -> Schedule:
    """alpha^2 falls along a logistic curve from `start` to `end`, scaled to run from 1 to 0; VP.

    (Jabri et al. 2022; Chen 2023, algorithm 1.)
    """

    scale = (end - start) / temperature

    def rise(xp, low, share):
        """logistic(low + share scale) - logistic(low), without the cancellation of the difference."""
        gap = share * scale
        return xp.sinh(gap / 2) / (2 * xp.cosh((low + gap) / 2) * xp.cosh(low / 2))

    low, total = start / temperature, rise(np, start / temperature, 1.0)

    def left(t):  # alpha^2
        return rise(namespace(t), low + scale * t, 1 - t) / total

    def lost(t):  # sigma^2
        return rise(namespace(t), low, t) / total

    return Schedule(alpha=lambda t: namespace(t).sqrt(left(t)), sigma=lambda t: namespace(t).sqrt(lost(t)))


def flow() -> Schedule:
    """The straight line from data to noise, alpha = 1 - t, sigma = t (flow matching, Lipman et al. 2023)."""
    return Schedule(
        alpha=lambda t: 1 - namespace(t).asarray(t, float), sigma=lambda t: namespace(t).asarray(t, float)
    )


def shifted(schedule: Schedule, factor: float) -> Schedule:
    """`schedule` with `factor` times the noise for the same signal: log-SNR is 2 log(factor) lower. VP stays VP.

    Larger images hide less under the same noise: simple diffusion (Hoogeboom et al. 2023) takes side / 64.
    """
    return _renoised(schedule, factor, lambda xp, alpha, sigma: xp.sqrt(alpha**2 + sigma**2))


def shifted_flow(schedule: Schedule, factor: float) -> Schedule:
    """`shifted` for alpha + sigma = 1: t becomes factor t / (1 + (factor - 1) t) (Esser et al. 2024, equation 23)."""
    return _renoised(schedule, factor, lambda xp, alpha, sigma: alpha + sigma)


def _renoised(schedule: Schedule, factor: float, norm: Callable[[Any, Any, Any], Any]) -> Schedule:
    if not factor > 0:
        raise InputError(f"a schedule is shifted by a factor above 0, not {factor}")

    def scale(t):
        return norm(namespace(t), schedule.alpha(t), factor * schedule.sigma(t))

    return Schedule(
        alpha=lambda t: schedule.alpha(t) / scale(t), sigma=lambda t: factor * schedule.sigma(t) / scale(t)
    )


def _log_alpha_linear(beta_min: float, beta_max: float) -> OfTime:
    if not 0 <= beta_min <= beta_max:
        raise InputError(f"a VP schedule needs 0 <= beta_min <= beta_max, not {beta_min} and {beta_max}")
    return lambda t: -0.5 * (beta_min * t + 0.5 * (beta_max - beta_min) * t**2)


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


def zero_terminal_snr(betas: ArrayLike) -> np.ndarray:
    """`betas` changed so that nothing is left of the data at t = 1: the last one becomes 1.

    (Lin et al. 2024, algorithm 1.) sqrt(alpha_bar) is shifted so that its last entry is 0, and scaled so that
    its first stays. A network that predicts eps says nothing of x0 at t = 1: train it to predict v or x0.
    """
    signal = np.sqrt(np.cumprod(1 - _checked(betas)))
    signal = (signal - signal[-1]) * signal[0] / (signal[0] - signal[-1])
    return _checked(1 - (signal / np.concatenate([[1.0], signal[:-1]])) ** 2)


def from_betas(betas: ArrayLike) -> Schedule:
    """The schedule of a table of betas [T]: alpha(i / T)^2 = prod_{j <= i} (1 - beta_j), DDPM equation 4.

    Times are looked up, not interpolated. NumPy times must be multiples of 1 / T (`InputError` otherwise);
    traced times are rounded to the nearest.
    """
    betas = _checked(betas)
    # log1p and expm1 keep sigma exact where beta is small: sigma(1 / T)^2 is 1e-4, alpha^2 is 0.9999.
    with np.errstate(divide="ignore"):  # a last beta of 1 leaves nothing: log 0
        log_alpha_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
    return Schedule(
        alpha=_lookup(np.exp(0.5 * log_alpha_bar)),
        sigma=_lookup(np.sqrt(-np.expm1(log_alpha_bar))),
    )


def through_levels(levels: np.ndarray) -> Schedule:
    """The VP schedule whose noise level sigma / alpha is `levels` [T + 1] at i / T, and on straight lines between.

    A table of betas that is known between its entries too, for samplers that look there. The levels begin with 0 and
    rise (`InputError` otherwise).
    """
    at = _between(_rising(levels))
    return _of_level(lambda t: at(namespace(t).asarray(t, float) * (len(levels) - 1)))


def through_log_levels(levels: ArrayLike) -> Schedule:
    """`through_levels`, but on straight lines of the logarithm, from the first entry on."""
    levels = _rising(levels)
    at = _between(np.log(levels[1:]))

    def level(t):
        xp = namespace(t)
        position = xp.asarray(t, float) * (len(levels) - 1)
        return xp.where(position < 1, position * levels[1], xp.exp(at(position - 1)))

    return _of_level(level)


def _between(table: np.ndarray) -> Callable[[Any], Any]:
    """A table's value at fractions of an index, on straight lines; the end's beyond it."""

    def at(position):
        xp = namespace(position)
        position = xp.clip(position, 0, len(table) - 1)
        low = xp.minimum(xp.floor(position), len(table) - 2).astype(int)
        share, entries = position - low, xp.asarray(table)
        return (1 - share) * entries[low] + share * entries[low + 1]

    return at


def _rising(levels: ArrayLike) -> np.ndarray:
    levels = np.asarray(levels, np.float64)
    fit = levels.ndim == 1 and len(levels) > 2 and levels[0] == 0
    if not (fit and (np.diff(levels) > 0).all() and np.isfinite(levels).all()):
        raise InputError("noise levels begin with 0 and rise, and each is finite")
    return levels


def _of_level(level: OfTime) -> Schedule:
    def alpha(t):
        return 1 / namespace(t).sqrt(1 + level(t) ** 2)

    return Schedule(alpha, sigma=lambda t: level(t) * alpha(t))


def _lookup(table: np.ndarray) -> OfTime:
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


def _checked(betas: ArrayLike) -> np.ndarray:
    betas = np.asarray(betas, np.float64)
    if betas.ndim != 1 or len(betas) == 0:
        raise InputError(f"betas must be a vector with at least one entry, not of shape {betas.shape}")
    fit = (betas > 0) & (betas < 1)
    fit[-1] |= betas[-1] == 1
    if not fit.all():
        raise InputError(f"betas must lie between 0 and 1 (only the last may be 1), found {betas[~fit][0]:g}")
    return betas
