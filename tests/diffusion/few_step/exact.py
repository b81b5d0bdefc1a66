"""Average velocities of the flow from noise to data N(0, S^2), in closed form."""

import jax.numpy as jnp
import numpy as np

from diffusion_jax.diffusion import parameterizations, schedules

S = 0.5
SCHEDULE = schedules.flow()
MAP = parameterizations.flow_map(parameterizations.velocity(SCHEDULE, lambda t: t), lambda length: length)


def std(t):
    """The flow is z_t = std(t) / std(1) z_1."""
    return jnp.sqrt((1 - t) ** 2 * S**2 + t**2)


def average(t, s):
    """u(z, t, s) = average(t, s) z, which is (1 - std(s) / std(t)) / (t - s) without the 0 / 0."""
    return ((t + s) - S**2 * (2 - t - s)) / ((std(t) + std(s)) * std(t))


def apply(params, z, times, dropout_keys=None):
    """The exact flow map, changed by each of three `params`."""
    t, length = (each[:, None] for each in times)
    return average(t, t - length) * z * (1 + params[0] + params[1] * t + params[2] * length)


EXACT = np.zeros(3)
