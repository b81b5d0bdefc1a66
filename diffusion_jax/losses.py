"""Training losses: `(keys [B], params, x0 [B, ...], t [B]) -> loss per example [B]`.

A loss corrupts x0 to the given times (`training_times`), asks the network, and lets a *judge* say how wrong it was:
`judge(output, x0, noise, x_t, t) -> [B]`. Judges of the parts of a dictionary add up (`joint`).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from diffusion_jax import rng
from diffusion_jax.arrays import expand
from diffusion_jax.distributions import mean_over_entries
from diffusion_jax.parameterizations import Parameterization
from diffusion_jax.processes import Process
from diffusion_jax.schedules import Schedule


def judged(judge: Callable, apply: Callable, parameterization: Parameterization, process: Process) -> Callable:
    """The loss of a judge.

    Args:
      judge: `(output, x0, noise, x_t, t) -> [B]`, with `noise` as `process.corrupt` returned it.
      apply: `(params, input [B, ...], time [B], dropout_keys [B]) -> output`, the network in training.
      parameterization: what it is shown.
      process: how data is corrupted.
    """

    def loss(keys, params, x0, t):
        noise_keys, dropout_keys = rng.split(keys, 2)
        x_t, noise = jax.vmap(process.corrupt)(noise_keys, x0, t)
        output = apply(params, *parameterization.scale(x_t, t), dropout_keys)
        return judge(output, x0, noise, x_t, t)

    return loss


def self_conditioned(
    judge: Callable, apply: Callable, parameterization: Parameterization, process: Process, share: float = 0.5
) -> Callable:
    """The loss of a judge for `processes.self_conditioned` (Chen, Zhang & Hinton 2023, algorithm 1).

    A `share` of the examples is shown what the network makes of them unconditioned, as a constant; the others are
    shown 0. It costs one more evaluation, without gradient. Other arguments as of `judged`.
    """

    def loss(keys, params, x0, t):
        noise_keys, coin_keys, first_keys, dropout_keys = rng.split(keys, 4)
        state, noise = jax.vmap(process.corrupt)(noise_keys, x0, t)
        first = apply(params, *parameterization.scale(state, t), first_keys)
        said = jax.lax.stop_gradient(parameterization.read(first, state, t).mean)
        told = jax.vmap(lambda key: jax.random.bernoulli(key, share))(coin_keys)
        state = state | {"said": jnp.where(expand(told, said), said, state["said"])}
        output = apply(params, *parameterization.scale(state, t), dropout_keys)
        return judge(output, x0, noise, state, t)

    return loss


def squared_error(parameterization: Parameterization) -> Callable:
    """The judge by mean squared error of what the network was asked for."""

    def judge(output, x0, noise, x_t, t):
        return mean_over_entries((output - parameterization.target(x0, noise, t)) ** 2)

    return judge


def joint(**judges: Callable) -> Callable:
    """The judge of a dictionary, for `processes.product`: the sum over its parts."""

    def judge(output, x0, noise, x_t, t):
        return sum(judges[name](output[name], x0[name], noise[name], x_t[name], t) for name in judges)

    return judge


def simple(apply: Callable, parameterization: Parameterization, process: Process) -> Callable:
    """L_simple, the mean squared error of what the network says (DDPM equation 14); arguments as of `judged`."""
    return judged(squared_error(parameterization), apply, parameterization, process)


def weighted(loss: Callable, weight: Callable) -> Callable:
    """`loss`, or a judge, times `weight(t)`, example by example: both take t last."""
    return lambda *arguments: weight(arguments[-1]) * loss(*arguments)


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
