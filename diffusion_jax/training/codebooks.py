"""The optimiser of codebooks that are moving averages (`autoencoding.moving`), for `optimizers.by_part`."""

import jax
import optax
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import moving
from diffusion_jax.core.errors import InputError
from diffusion_jax.training.optimizers import ALL, MakeOptimizer, Optimizer


def followed(decay: float = 0.99, least: float = 0.5) -> MakeOptimizer:
    """`train -> Optimizer` of a part that holds one codebook or several; the moving averages of `moving.moved`.

    It must not be clipped or weighed: its gradients are the batch's statistics. They are means over the
    `train.batch_size` examples of an update, so the same number times makes them sums.

    Args:
      decay: of the averages, in [0, 1).
      least: vectors of a batch below which a code is dead, and revived: in [0, 1), for one revived counts 1.

    Raises:
      InputError: a number is outside.
    """
    for name, value in {"decay": decay, "least": least}.items():
        if not 0 <= value < 1:
            raise InputError(f"a codebook with {name}={value}; give a number from 0, below 1")

    def make(train: ConfigDict) -> Optimizer:
        def update(gradients, state, params):
            def step(seen, codebook):
                seen = {name: train.batch_size * mean for name, mean in seen.items()}
                new = moving.moved(codebook, seen, decay, least)
                return jax.tree.map(lambda new, old: new - old, new, codebook)

            return jax.tree.map(step, gradients, params, is_leaf=_is_codebook), state

        return Optimizer(optax.GradientTransformation(lambda params: optax.EmptyState(), update), observed=(ALL,))

    return make


def _is_codebook(part) -> bool:
    return isinstance(part, dict) and "counts" in part
