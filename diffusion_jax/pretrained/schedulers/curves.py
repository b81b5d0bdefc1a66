"""Curves that the noise levels of published schedulers go by: `(first, final, steps) -> levels [steps]`."""

from collections.abc import Callable

import numpy as np

from diffusion_jax.pretrained.published import Values

CURVES = {"use_karras_sigmas": False, "use_exponential_sigmas": False, "use_beta_sigmas": False}


def karras(first: float, final: float, steps: int) -> np.ndarray:
    """Equal steps of v^(1/7) (Karras et al. 2022, equation 5)."""
    return np.linspace(first ** (1 / 7), final ** (1 / 7), steps) ** 7


def exponential(first: float, final: float, steps: int) -> np.ndarray:
    """Equal steps of log v."""
    return np.exp(np.linspace(np.log(first), np.log(final), steps))


def beta(first: float, final: float, steps: int) -> np.ndarray:
    """Equal steps of the distribution function of Beta(0.6, 0.6) (Lee et al. 2024, "Beta Sampling")."""
    return final + beta_quantile(np.linspace(1, 0, steps)) * (first - final)


def beta_quantile(share: np.ndarray, a: float = 0.6) -> np.ndarray:
    """Where the distribution function of Beta(a, a) is `share` in [0, 1]; NumPy, any shape, to float64's rounding."""
    share = np.asarray(share, np.float64)
    number = np.arange(64)
    # Up to 1/2 it is x^a sum_n (1 - a)_n / (n! (a + n)) x^n, but for a factor, and the law is symmetric.
    terms = np.cumprod(np.append(1.0, (number[1:] - a) / number[1:])) / (a + number)
    below = np.minimum(share, 1 - share)

    def rising(x):
        return x**a * np.polynomial.polynomial.polyval(x, terms)

    low, high = np.zeros_like(below), np.full_like(below, 0.5)
    for _ in range(80):
        middle = (low + high) / 2
        under = rising(middle) < 2 * below * rising(0.5)
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    found = np.where(below > 0, (low + high) / 2, 0.0)
    return np.where(share > 0.5, 1 - found, found)


KINDS = {
    "use_karras_sigmas": karras,
    "use_exponential_sigmas": exponential,
    "use_beta_sigmas": beta,
    "use_lu_lambdas": exponential,  # DPM-Solver's; in diffusers its rho is 1
}


def curve(values: Values) -> Callable[[float, float, int], np.ndarray] | None:
    """The one that is asked for, between the config's own ends where it has them."""
    asked = [name for name in KINDS if name in values.values and values.only(name, False, True, None)]
    if len(asked) > 1:
        values.refuse(asked[1], True, f"only one, and {asked[0]} is true")
    if not asked:
        return None
    given = [name for name in ("sigma_max", "sigma_min") if values.values.get(name) is not None]
    ends = {name: values.number(name, 1e-6, 1e6) for name in given}

    def within(high, low, steps):
        return KINDS[asked[0]](ends.get("sigma_max", high), ends.get("sigma_min", low), steps)

    return within
