"""Times: the grids that samplers walk down, and the times at which networks are trained.

A grid is a float64 NumPy vector from the first time down to 0, one entry more than there are steps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.errors import InputError


def uniform(steps: int, num: int) -> np.ndarray:
    """`steps` equal steps from t = 1 to 0 on a table of `num` entries, rounded to it; [steps + 1].

    With steps = num this is the whole chain, DDPM's Algorithm 2.
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


def table_times(num: int) -> Callable:
    """`key -> t`: uniform over the table's times 1 / num, ..., 1 (DDPM's Algorithm 1, line 3)."""
    return lambda key: jax.random.randint(key, (), 1, num + 1).astype(jnp.float32) / num


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
