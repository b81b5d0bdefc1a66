"""One update of the parameters, as a pure function."""

from collections.abc import Collection, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Loss, ShareSlope, TrainStep, Tree
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.diffusion.time_sampling import Times
from diffusion_jax.parallel.replicated import MAPPED, Shares
from diffusion_jax.training.averages import Average, exponential, update
from diffusion_jax.training.state import TrainState

LOGGED = {"step", "loss", "grad_norm", "examples_per_second"}  # names of the log's own


def make_train_step(
    loss: Loss,
    times: Times,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    seed: int,
    accumulate: int = 1,
    shares: Shares = MAPPED,
    averages: Mapping[str, Average] = MappingProxyType({}),
    observed: Collection[str] = (),
) -> TrainStep:
    """`train_step(state, batch, held) -> (state, metrics)`, for the part of the batch that `shares` names.

    By default that is one device's share, under the axis `parallel.AXIS` (`DataParallel.train_step` provides it).
    Gradients and metrics are averaged over the global batch. Its example i draws from the key of (seed, step, i),
    whichever device it is on. `held` are arrays that stay as they are (`losses.Context`).

    Args:
      loss: `(keys [b], params, batch, context) -> (loss per example [b], info)`, with `context` a `losses.Context`.
      times: how the times t are drawn.
      optimizer: an optax transformation; it sees the averaged gradients.
      ema_decay: decay of the moving average of the parameters, in [0, 1).
      seed: root of all the randomness of training.
      accumulate: parts that a device's share is computed in, one after another, to save memory; the results
        are the same up to rounding.
      shares: of the object that compiles the step (`Parallel.shares`).
      averages: further moving averages; the state's `averages` have the same names.
      observed: parts of the parameters that are statistics (`optimizers.Optimizer`).

    Returns:
      The step. Metrics are float32 scalars: "loss", weighted as `times` weighs it, "grad_norm" before clipping, and
      the means of `info` by their names.

    Raises:
      InputError: `ema_decay` is not in [0, 1); or, in the step, `accumulate` does not divide the device's share, or
        `info` has a name that the log has.
    """
    root, main = rng.root(seed), exponential(ema_decay)

    def train_step(state: TrainState, batch, held=MappingProxyType({})):
        size = jax.tree.leaves(batch)[0].shape[0]
        index = shares.indices(size)
        keys = rng.per_example(rng.stream(root, "train", state.step), index)
        t, weight = times.draw(state.memory, rng.stream(root, "times", state.step), index, shares.size(size))
        beside = {"step": state.step, "averages": {"ema": state.ema, **state.averages}, "held": dict(held)}

        def mean_loss(params, beside, keys, batch, t, weight):
            losses, info = loss(keys, params, batch, Context(t, **beside, gather=Partial(shares.peers)))
            return (weight * losses).mean(), (losses, info)

        def derive(loss):
            return in_parts(jax.value_and_grad(loss, has_aux=True), accumulate)

        slope = shares.slope(mean_loss, derive)
        (value, (losses, info)), gradients = slope(state.params, beside, keys, batch, t, weight)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = update(state.ema, params, main.weight(state.step))
        further = {
            name: update(state.averages[name], params, average.weight(state.step))
            for name, average in averages.items()
        }
        metrics = {"loss": value, "grad_norm": optax.tree.norm(_descended(gradients, observed))}
        metrics |= _means(shares, info)
        memory = times.update(state.memory, *shares.batch((t, losses)))
        return TrainState(state.step + 1, params, ema, optimizer_state, memory, further), metrics

    return train_step


def _descended(gradients: Tree, observed: Collection[str]) -> Tree:
    """`gradients` without the parts that are statistics."""
    return {name: part for name, part in gradients.items() if name not in observed} if observed else gradients


def _means(shares: Shares, info: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    if taken := sorted(info.keys() & LOGGED):
        raise InputError(f"the loss logs {taken[0]!r}, which the log has already; give it another name")
    return {name: shares.batch(each).astype(jnp.float32).mean() for name, each in info.items()}


def check_parts(size: int, parts: int):
    """Raise `InputError` unless a device's share of `size` examples divides into `parts`."""
    if parts < 1 or size % parts:
        raise InputError(f"{size} examples a device in {parts} parts; take train.accumulate as a divisor of {size}")


def in_parts(slope: ShareSlope, parts: int) -> ShareSlope:
    """`slope` of a batch as the mean over that many equal parts of it, computed one after another.

    Args:
      slope: `(params, beside, *batch) -> ((value, aux), gradients)`, means over the examples of a batch; the arrays
        of `batch`, and those of `aux`, lead with them.
      parts: 1 is `slope` itself.
    """
    if parts == 1:
        return slope

    def mean_slope(params, beside, *batch):
        size = jax.tree.leaves(batch)[0].shape[0]
        check_parts(size, parts)
        split = jax.tree.map(lambda x: x.reshape(parts, size // parts, *x.shape[1:]), batch)

        def add(total, part):
            (value, each), gradients = slope(params, beside, *part)
            return jax.tree.map(jnp.add, total, (value, gradients)), each

        zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
        total, each = jax.lax.scan(add, zero, split)
        value, gradients = jax.tree.map(lambda x: x / parts, total)
        return (value, jax.tree.map(lambda x: x.reshape(size, *x.shape[2:]), each)), gradients

    return mean_slope
