"""One update of the parameters, as a pure function."""

from collections.abc import Callable

import jax
import optax

from diffusion_jax import rng
from diffusion_jax.training.parallel import AXIS, global_indices
from diffusion_jax.training.state import TrainState, update_ema


def make_train_step(
    loss: Callable, optimizer: optax.GradientTransformation, ema_decay: float, seed: int
) -> Callable:
    """`train_step(state, batch) -> (state, metrics)`, for one device's share of the batch.

    It runs under the axis `parallel.AXIS` (`DataParallel.train_step` provides it), over which gradients and
    metrics are averaged. Example i of the global batch draws from the key of (seed, step, i), whichever
    device it is on.

    Args:
      loss: `(keys [b], params, batch) -> (loss per example [b], info)`.
      optimizer: an optax transformation; it sees the averaged gradients.
      ema_decay: decay of the moving average of the parameters, in [0, 1).
      seed: root of all the randomness of training.

    Returns:
      The step. Metrics are float32 scalars: "loss", and "grad_norm" before clipping.
    """
    root = jax.random.key(seed)

    def train_step(state: TrainState, batch):
        size = jax.tree.leaves(batch)[0].shape[0]
        keys = rng.per_example(rng.stream(root, "train", state.step), global_indices(size))

        def mean_loss(params):
            losses, _ = loss(keys, params, batch)
            return losses.mean()

        value, gradients = jax.value_and_grad(mean_loss)(state.params)
        value, gradients = jax.lax.pmean((value, gradients), AXIS)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer, state.params)
        params = optax.apply_updates(state.params, updates)
        ema = update_ema(state.ema, params, state.step, ema_decay)
        metrics = {"loss": value, "grad_norm": optax.tree.norm(gradients)}
        return TrainState(state.step + 1, params, ema, optimizer_state), metrics

    return train_step
