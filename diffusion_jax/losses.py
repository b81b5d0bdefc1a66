"""Training losses: `(keys [B], params, x0 [B, ...]) -> (loss per example [B], info)`."""

from collections.abc import Callable

import jax

from diffusion_jax import rng
from diffusion_jax.distributions import mean_over_entries
from diffusion_jax.parameterizations import Parameterization
from diffusion_jax.processes import Process


def simple(
    apply: Callable, parameterization: Parameterization, process: Process, sample_time: Callable
) -> Callable:
    """Mean squared error of what the network says, at random times: L_simple (DDPM equation 14).

    Args:
      apply: `(params, input [B, ...], time [B], dropout_keys [B]) -> output`, the network in training.
      parameterization: what it is shown and asked for.
      process: how images are corrupted.
      sample_time: `key -> t`, one example's time (`timesteps.table_times`).

    Returns:
      The loss; it is averaged over an image's entries, and `info` is {"t": times [B]}.
    """

    def loss(keys, params, x0):
        time_keys, noise_keys, dropout_keys = rng.split(keys, 3)
        t = jax.vmap(sample_time)(time_keys)
        x_t, noise = jax.vmap(process.corrupt)(noise_keys, x0, t)
        output = apply(params, *parameterization.scale(x_t, t), dropout_keys)
        error = output - parameterization.target(x0, noise, t)
        return mean_over_entries(error**2), {"t": t}

    return loss
