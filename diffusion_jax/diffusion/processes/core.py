"""What every process is: how data is destroyed, and how one step of the destruction is undone.

A process knows nothing of networks or of what they predict. Its `bridge` turns a belief about x0 into the
kernel p(x_s | x_t) of one reverse step: estimate, then correct.
"""

from typing import NamedTuple

import numpy as np

from diffusion_jax.core.arrays import namespace
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Bridges, Corrupt, LastPrior, Prior, Time


class Process(NamedTuple):
    """A forward process and the correction that undoes one step of it.

    Attributes:
      corrupt: `(key, x0, t) -> (x_t, noise)`, x_t ~ q(x_t | x0). One example and a scalar t; callers `vmap`.
        `noise` is what a network may be asked to predict.
      bridge: `(t, s) -> Bridge`, for s < t. A `Bridge` is a pytree and a function
        `(estimate, x_t) -> kernel`, p(x_s | x_t) given the estimate of x0; every array of the kernel leads
        with the batch axis. Times may be whole grids (arrays [N]): the bridge then holds the coefficients
        of every step, in float64, and `lax.scan` slices it.
      prior: `(key, shape, t=1.0) -> x_t`, one example of the given shape: where a chain starts that begins at t, a
        number in (0, 1]. It is the marginal there, or `InputError` where the process does not know it.
    """

    corrupt: Corrupt
    bridge: Bridges
    prior: Prior


def from_the_end(prior: LastPrior) -> Prior:
    """A `Process.prior` of one that is known at the end alone, `prior(key, shape) -> x_1`: `InputError` for t < 1."""

    def at(key, shape, t=1.0):
        if t != 1:
            raise InputError(f"this process knows its prior at t = 1 alone, not at {t:g}: start the grid at 1")
        return prior(key, shape)

    return at


def check_interval(t: Time, s: Time) -> None:
    """Raise `InputError` unless 0 <= s < t <= 1. Traced times cannot be looked at, and pass."""
    concrete = namespace(t) is np and namespace(s) is np
    if concrete and not np.all((np.asarray(0) <= s) & (np.asarray(s) < t) & (np.asarray(t) <= 1)):
        raise InputError(f"a step goes from t down to s with 0 <= s < t <= 1, not from t = {t} to s = {s}")
