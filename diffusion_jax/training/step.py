"""One update of the parameters, as a pure function."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from diffusion_jax import rng
from diffusion_jax.errors import InputError
from diffusion_jax.training.parallel import AXIS, global_batch, global_indices, global_size
from diffusion_jax.training.state import TrainState, update_ema
from diffusion_jax.training_times import Times


def make_train_step(
    loss: Callable,
    times: Times,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
    seed: int,
    accumulate: int = 1,
) -> Callable:
    """`train_step(state, batch) -> (state, metrics)`, for one device's share of the batch.

    It runs under the axis `parallel.AXIS` (`DataParallel.train_step` provides it), over which gradients and
    metrics are averaged. Example i of the global batch draws from the key of (seed, step, i), whichever
    device it is on.

    Args:
      loss: `(keys [b], params, batch, t [b]) -> loss per example [b]`.
      times: how the times t are drawn.
      optimizer: an optax transformation; it sees the averaged gradients.
      ema_decay: decay of the moving average of the parameters, in [0, 1).
      seed: root of all the randomness of training.
      accumulate: parts that a device's share is computed in, one after another, for memory; what is learned does
        not depend on it but for rounding.

    Returns:
      The step. Metrics are float32 scalars: "loss", weighted as `times` weighs it, and "grad_norm" before clipping.

    Raises:
      InputError: in the step, where `accumulate` does not divide the device's share.
    """
    root = jax.random.key(seed)

    def train_step(state: TrainState, batch):
        size = jax.tree.leaves(batch)[0].shape[0]
        index = global_indices(size)
        keys = rng.per_example(rng.stream(root, "train", state.step), index)
        t, weight = times.draw(state.memory, rng.stream(root, "times", state.step), index, global_size(size))

        def mean_loss(params, keys, batch, t, weight):
            losses = loss(keys, params, batch, t)
            return (weight * losses).mean(), losses

        slope = jax.value_and_grad(mean_loss, has_aux=True)
        (value, losses), gradients = in_parts(slope, accumulate)(state.params, keys, batch, t, weight)
        value, gradients = jax.lax.pmean((value, gradients), AXIS)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = update_ema(state.ema, params, state.step, ema_decay)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(gradients)}
        memory = times.update(state.memory, *global_batch((t, losses)))
        return TrainState(state.step + 1, params, ema, optimizer_state, memory), metrics

    return train_step


def check_parts(size: int, parts: int):
    """Raise `InputError` unless a device's share of `size` examples divides into `parts`."""
    if parts < 1 or size % parts:
        raise InputError(f"{size} examples a device in {parts} parts; take train.accumulate as a divisor of {size}")


def in_parts(slope: Callable, parts: int) -> Callable:
    """`slope` of a batch as the mean over that many equal parts of it, computed one after another.

    Args:
      slope: `(params, *batch) -> ((value, per example [b]), gradients)`, means over the examples of a batch; the
        arrays of `batch` lead with them.
      parts: 1 is `slope` itself.
    """
    if parts == 1:
        return slope

    def mean_slope(params, *batch):
        size = jax.tree.leaves(batch)[0].shape[0]
        check_parts(size, parts)
        split = jax.tree.map(lambda x: x.reshape(parts, size // parts, *x.shape[1:]), batch)

        def add(total, part):
            (value, each), gradients = slope(params, *part)
            return jax.tree.map(jnp.add, total, (value, gradients)), each

        zero = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
        total, each = jax.lax.scan(add, zero, split)
        value, gradients = jax.tree.map(lambda x: x / parts, total)
        return (value, each.reshape(size)), gradients

    return mean_slope
