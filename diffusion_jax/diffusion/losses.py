"""Training losses: `(keys [B], params, x0 [B, ...], context, *cond) -> (loss per example [B], info)`.

The losses of diffusion corrupt x0 to the given times, `context.t`, ask the network, and let a *criterion* measure
its error: `criterion(output, x0, noise, x_t, t) -> [B]`. Criteria of a dictionary's parts add up (`joint`). `cond` is
the network's condition: nothing, or a dictionary of arrays [B, ...]. `info` is what else is logged: name -> [B], of
which the mean over the global batch is taken.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.distributions import Categorical, mean_over_entries
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Apply, Criterion, GatherBatch, Integrand, Law, Loss, Null, OfTime, Retell
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.schedules import Schedule


class Context(NamedTuple):
    """What a loss may look at beside parameters, keys and data. All of it is constant: no gradient reaches it.

    Attributes:
      t: the times [B], in (0, 1]; or whatever tree of arrays [B, ...] is drawn in their place (`time_sampling`).
      step: int32 scalar, the updates made before this one.
      averages: name -> averaged parameters as they stood before this update: "ema", that samples are drawn with, and
        the further ones. A target network is one of them.
      held: nested dictionary of arrays that the run has read once and never trains: a teacher, an encoder.
      gather: `tree [b, ...] -> tree [B, ...]`, arrays of this loss's examples as those of the global batch, in order;
        for losses that compare examples. Gradients pass: those of the mean loss over the global batch are exact. A
        batch in several parts (`train.accumulate`) is gathered part by part.
    """

    t: Any
    step: Any = 0
    averages: Mapping[str, Any] = {}  # a pytree takes no other mapping; never changed
    held: Mapping[str, Any] = {}
    gather: GatherBatch = Partial(
        lambda tree: tree
    )  # without leaves: contexts are given to functions that are traced


def integrand(loss: Loss) -> Integrand:
    """`(keys [B], params, x0 [B, ...], t [B], *cond) -> [B]`: a loss that looks at nothing but the times, of them."""
    return lambda keys, params, x0, t, *cond: loss(keys, params, x0, Context(t), *cond)[0]


def of_criterion(criterion: Criterion, apply: Apply, parameterization: Parameterization, process: Process) -> Loss:
    """The loss of a criterion.

    Args:
      criterion: `(output, x0, noise, x_t, t) -> [B]`, with `noise` as `process.corrupt` returned it.
      apply: `(params, input [B, ...], time [B], *cond, dropout_keys=[B]) -> output`, the network in training.
      parameterization: what it is shown.
      process: how data is corrupted.
    """

    def loss(keys, params, x0, context, *cond):
        t = context.t
        noise_keys, dropout_keys = rng.split(keys, 2)
        x_t, noise = jax.vmap(process.corrupt)(noise_keys, x0, t)
        output = apply(params, *parameterization.scale(x_t, t), *cond, dropout_keys=dropout_keys)
        return criterion(output, x0, noise, x_t, t), {}

    return loss


def self_conditioned(
    criterion: Criterion, apply: Apply, parameterization: Parameterization, process: Process, share: float = 0.5
) -> Loss:
    """The loss of a criterion for `processes.self_conditioned` (Chen, Zhang & Hinton 2023, algorithm 1).

    A `share` of the examples is shown what the network makes of them unconditioned, as a constant; the others are
    shown 0. It costs one more evaluation, without gradient. Other arguments as of `of_criterion`.
    """

    def loss(keys, params, x0, context, *cond):
        t = context.t
        noise_keys, coin_keys, first_keys, dropout_keys = rng.split(keys, 4)
        state, noise = jax.vmap(process.corrupt)(noise_keys, x0, t)
        first = apply(params, *parameterization.scale(state, t), *cond, dropout_keys=first_keys)
        estimate = jax.lax.stop_gradient(parameterization.read(first, state, t).mean)
        shown = jax.vmap(lambda key: jax.random.bernoulli(key, share))(coin_keys)
        state = state | {"estimate": jnp.where(expand(shown, estimate), estimate, state["estimate"])}
        output = apply(params, *parameterization.scale(state, t), *cond, dropout_keys=dropout_keys)
        return criterion(output, x0, noise, state, t), {}

    return loss


def squared_error(parameterization: Parameterization) -> Criterion:
    """The criterion by mean squared error of what the network was asked for."""

    def criterion(output, x0, noise, x_t, t):
        return mean_over_entries((output - parameterization.target(x0, noise, t)) ** 2)

    return criterion


def absolute_error(parameterization: Parameterization) -> Criterion:
    """The criterion by mean absolute error of what the network was asked for (latent diffusion's churches)."""

    def criterion(output, x0, noise, x_t, t):
        return mean_over_entries(jnp.abs(output - parameterization.target(x0, noise, t)))

    return criterion


def error_in_x0(parameterization: Parameterization, weight: OfTime) -> Criterion:
    """The criterion by mean squared error of the estimate of x0, times `weight(t)`: of networks whose outputs are
    merged into one estimate (`parameterizations.x0_and_eps`)."""

    def criterion(output, x0, noise, x_t, t):
        return weight(t) * mean_over_entries((parameterization.read(output, x_t, t).mean - x0) ** 2)

    return criterion


def joint(**criteria: Criterion) -> Criterion:
    """The criterion of a dictionary, for `processes.product`: the sum over its parts."""

    def criterion(output, x0, noise, x_t, t):
        return sum(criteria[name](output[name], x0[name], noise[name], x_t[name], t) for name in criteria)

    return criterion


def simple(apply: Apply, parameterization: Parameterization, process: Process) -> Loss:
    """L_simple, the mean squared error of the network's output (DDPM equation 14); arguments as of `of_criterion`."""
    return of_criterion(squared_error(parameterization), apply, parameterization, process)


def weighted(loss: Loss, weight: OfTime) -> Loss:
    """`loss` times `weight(t)`, example by example."""

    def times_weight(keys, params, x0, context, *cond):
        value, info = loss(keys, params, x0, context, *cond)
        return weight(context.t) * value, info

    return times_weight


def weighted_criterion(criterion: Criterion, weight: OfTime) -> Criterion:
    """`criterion` times `weight(t)`, example by example; for the parts of `joint`."""
    return lambda output, x0, noise, x_t, t: weight(t) * criterion(output, x0, noise, x_t, t)


def withholding(loss: Loss, null: Null, rate: float = 0.1) -> Loss:
    """`loss` where a share `rate` of the examples, drawn at random, is not told its condition.

    So that one network learns both halves of classifier-free guidance (Ho & Salimans 2022, algorithm 1).

    Args:
      loss: of examples that are told one `cond`.
      null: `cond -> cond` that tells nothing, of the same shapes (`guidance.replacing`).
      rate: in [0, 1]; 0.1 to 0.2 is usual.

    Raises:
      InputError: the rate is outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise InputError(f"a share of {rate} that is not told its condition: give one in [0, 1]")

    def withheld(keys, params, x0, context, cond):
        keys, coins = rng.split(keys, 2)
        dropped = jax.vmap(lambda key: jax.random.bernoulli(key, rate))(coins)
        cond = jax.tree.map(
            lambda value, nothing: jnp.where(expand(dropped, value), nothing, value), cond, null(cond)
        )
        return loss(keys, params, x0, context, cond)

    return withheld


def augmented(loss: Loss, augment: Retell, levels: Law) -> Loss:
    """`loss` of examples that are told what `augment` makes of their condition, each at a level of its own.

    Conditioning augmentation (Ho et al. 2022, section 4); sampling augments likewise, at a level that is chosen.

    Args:
      loss: of examples that are told one `cond`.
      augment: `(keys [B], cond, level [B]) -> cond`, such as `cascades.telling(cascades.noised(schedule))`.
      levels: their law, `u -> level` (`time_sampling.uniform(0.0)`).
    """

    def of_augmented(keys, params, x0, context, cond):
        keys, level_keys, own = rng.split(keys, 3)
        level = levels(jax.vmap(jax.random.uniform)(level_keys))
        return loss(keys, params, x0, context, augment(own, cond, level))

    return of_augmented


def classifying(apply: Apply, process: Process) -> Loss:
    """The loss of a classifier of noisy data: the cross-entropy in nats of `cond["label"]`, int [B].

    Args:
      apply: `(params, x_t [B, ...], t [B], dropout_keys=[B]) -> logits [B, K]`.
      process: how data is corrupted.
    """

    def loss(keys, params, x0, context, cond):
        noise_keys, dropout_keys = rng.split(keys, 2)
        x_t, _ = jax.vmap(process.corrupt)(noise_keys, x0, context.t)
        logits = apply(params, x_t, context.t, dropout_keys=dropout_keys)
        return -Categorical(logits).log_prob(cond["label"]), {}

    return loss


def snr(schedule: Schedule) -> OfTime:
    """The weight alpha^2 / sigma^2, which turns an error in x0 into one in eps; t > 0."""
    return lambda t: (schedule.alpha(t) / schedule.sigma(t)) ** 2


def truncated_snr(schedule: Schedule) -> OfTime:
    """The weight max(SNR, 1) for a squared error in x0: the larger of those in x0 and eps (Salimans & Ho 2022)."""
    return lambda t: jnp.maximum(snr(schedule)(t), 1.0)


def of_v(schedule: Schedule) -> OfTime:
    """The weight (alpha^2 + sigma^2)^2 / sigma^2, which turns an error in x0 into one in v; SNR + 1 for VP; t > 0."""

    def weight(t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return ((alpha**2 + sigma**2) / sigma) ** 2

    return weight


def min_snr(schedule: Schedule, gamma: float = 5.0) -> OfTime:
    """min(SNR, gamma) / SNR: the weight of Min-SNR for a squared error in eps (Hang et al. 2023, section 3.4).

    An error in x0 takes min(SNR, gamma), which is this times `snr`; one in v takes this times
    SNR / (SNR + 1). It is 1 where nothing is left of the data (SNR = 0), and 0 at t = 0.
    """

    def weight(t):
        return 1 / jnp.maximum(1.0, snr(schedule)(t) / gamma)

    return weight
