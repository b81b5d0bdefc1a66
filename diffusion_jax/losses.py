"""Training losses: `(keys [B], params, x0 [B, ...]) -> (loss per example [B], info)`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax import rng
from diffusion_jax.distributions import mean_over_entries
from diffusion_jax.parameterizations import Parameterization
from diffusion_jax.processes import Process
from diffusion_jax.schedules import Schedule


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


def weighted(loss: Callable, weight: Callable) -> Callable:
    """`loss` times `weight(t)`, example by example; `loss` must tell its times in info["t"]."""

    def weighted_loss(keys, params, batch):
        losses, info = loss(keys, params, batch)
        return weight(info["t"]) * losses, info

    return weighted_loss


def snr(schedule: Schedule) -> Callable:
    """The weight alpha^2 / sigma^2, which turns an error in x0 into one in eps; t > 0."""
    return lambda t: (schedule.alpha(t) / schedule.sigma(t)) ** 2


def min_snr(schedule: Schedule, gamma: float = 5.0) -> Callable:
    """min(SNR, gamma) / SNR: the weight of Min-SNR for a squared error in eps (Hang et al. 2023, section 3.4).

    An error in x0 takes min(SNR, gamma), which is this times `snr`; one in v takes this times
    SNR / (SNR + 1). t > 0.
    """

    def weight(t):
        ratio = snr(schedule)(t)
        return jnp.minimum(ratio, gamma) / ratio

    return weight
