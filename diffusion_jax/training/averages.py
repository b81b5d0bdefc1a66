"""Averages of parameters along training, and averages that are chosen after it.

Post-hoc averages are those of Karras et al. 2024, "Analyzing and Improving the Training Dynamics of Diffusion Models"
(EDM2), section 3 and appendix C. The profile of an average says how much of each moment t of training is in it. That
of `power` is t^gamma, from 0 to now, and is named by sigma_rel, its standard deviation as a part of the training so
far: such an average grows with the training.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import OfStep, Tree

WIDEST = 1 / math.sqrt(12)  # sigma_rel of gamma = 0, the mean of all
TINY = 1e-12  # of the largest singular value; snapshots that are nearly one count as one


class Average(NamedTuple):
    """How an average follows the parameters: average += weight(step) * (params - average).

    Attributes:
      weight: `step -> weight`, float32, in [0, 1], of the parameters after the update number `step` (from 0). Where
        it is 1 at step 0, as of `exponential` and `power`, the random start is never a part of the average.
      sigma_rel: of its power-function profile; None for an average of another profile.
    """

    weight: OfStep
    sigma_rel: float | None = None


def exponential(decay: float) -> Average:
    """The exponential average, which keeps `decay` of itself in every update (DDPM's appendix B takes 0.9999).

    Raises:
      InputError: `decay` is not in [0, 1).
    """
    if not 0 <= decay < 1:
        raise InputError(f"the decay of an average is {decay}; it must lie in [0, 1)")
    return Average(lambda step: jnp.where(step == 0, 1.0, 1 - decay))


def power(sigma_rel: float) -> Average:
    """The average of profile t^gamma, gamma = `exponent(sigma_rel)` (EDM2, equation 127, with t = step + 1).

    Its weights add up to the integral of the profile: after T updates the parameters of update t, from 1, are
    (t / T)^(gamma + 1) - ((t - 1) / T)^(gamma + 1) of it.

    Raises:
      InputError: as of `exponent`.
    """
    gamma = exponent(sigma_rel)
    # 1 - (1 - 1 / t)^(gamma + 1); late in training it is small, and written so it does not cancel.
    return Average(lambda step: -jnp.expm1((gamma + 1) * jnp.log1p(-1 / (jnp.float32(step) + 1))), sigma_rel)


def named(decays: Iterable[float] = (), profiles: Iterable[float] = ()) -> dict[str, Average]:
    """Averages by their names: "0.999" for a decay, "sigma_rel_0.05" for a profile.

    Raises:
      InputError: as of `exponential` and `power`, or something is not a number.
    """
    decays, profiles = tuple(decays), tuple(profiles)
    for value in (*decays, *profiles):
        if isinstance(value, str):
            raise InputError(f"an average of {value!r}; give numbers, such as 0.05,0.1")
    known = {f"{decay:.12g}": exponential(decay) for decay in decays}
    return known | {f"sigma_rel_{sigma:.12g}": power(sigma) for sigma in profiles}


def update(average: Tree, params: Tree, weight: Any) -> Tree:
    """The average after a step to `params`, a tree of the same structure; `weight` is a scalar (`Average.weight`)."""

    # As a move toward `value`: what does not change is then its own average, exactly.
    def move(mean, value):
        return jnp.where(weight < 1, mean + weight * (value - mean), value)

    return jax.tree.map(move, average, params)


def exponent(sigma_rel: float) -> float:
    """gamma of the profile t^gamma whose standard deviation is `sigma_rel` of its length (EDM2, equation 126).

    Raises:
      InputError: `sigma_rel` is not in (0, 1 / sqrt(12)]; at the end of it, gamma = 0.
    """
    if not 0 < sigma_rel <= WIDEST:
        raise InputError(f"sigma_rel is {sigma_rel}; it must be above 0 and at most {WIDEST:.4f}, the mean of all")
    # (gamma + 2)^2 (gamma + 3) = (gamma + 1) / sigma_rel^2, from equation 123.
    square = sigma_rel**-2
    return float(np.roots([1, 7, 16 - square, 12 - square]).real.max())


class Mixture(NamedTuple):
    """How snapshots make an average.

    Attributes:
      weights: float64 [n], of each snapshot; their sum is 1.
      error: how far the mixture's profile is from the one wanted, as a part of its norm; 0 is exact.
    """

    weights: np.ndarray
    error: float


def mixture(steps: Sequence[int], sigmas: Sequence[float], step: int, sigma: float) -> Mixture:
    """The average of profile `sigma` after `step` updates from snapshots of others (EDM2, algorithm 3), in float64.

    The nearest profile in the least-squares sense, among those whose weights add up to 1: any other would scale what
    all snapshots have in common (by 1.04, for 0.075 from one snapshot each of 0.05 and 0.1).

    Args:
      steps: updates before each snapshot, [n], from 1.
      sigmas: sigma_rel of each, [n].
      step: updates before the average that is wanted.
      sigma: its sigma_rel.
    """
    t, gamma = np.asarray(steps, np.float64), np.array([exponent(sigma) for sigma in sigmas])
    wanted = float(step), exponent(sigma)
    # Profiles are scaled to norm 1 while they are solved for, which the condition of the system needs.
    norm, norm_wanted = _log_inner(t, gamma, t, gamma) / 2, _log_inner(*wanted, *wanted) / 2
    gram = np.exp(_log_inner(t[:, None], gamma[:, None], t, gamma) - norm[:, None] - norm)
    right = np.exp(_log_inner(t, gamma, *wanted) - norm - norm_wanted)
    mass = np.exp(norm_wanted - norm)  # of the scaled profiles; the wanted one has 1
    free, shift = np.linalg.lstsq(gram, np.stack([right, mass], axis=1), rcond=TINY)[0].T
    scaled = free + shift * (1 - mass @ free) / (mass @ shift)  # Lagrange's multiplier of the sum
    square = 1 - 2 * right @ scaled + scaled @ gram @ scaled
    return Mixture(mass * scaled, math.sqrt(max(square, 0.0)))


def _log_inner(t_a, gamma_a, t_b, gamma_b):
    """Logarithm of the inner product of profiles (gamma + 1) tau^gamma / t^(gamma + 1), on [0, t] (equation 151)."""
    both = gamma_a + gamma_b + 1
    ends = both * np.log(np.minimum(t_a, t_b)) - (gamma_a + 1) * np.log(t_a) - (gamma_b + 1) * np.log(t_b)
    return np.log(gamma_a + 1) + np.log(gamma_b + 1) - np.log(both) + ends
