"""What training changes from step to step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from diffusion_jax.training_times import Times


class TrainState(NamedTuple):
    """A pytree of arrays.

    Attributes:
      step: int32 scalar, the number of updates made.
      params: the network's parameters, float32.
      ema: their exponential moving average, of the same structure; what samples are drawn with.
      optimizer: the optimiser's state.
      memory: what the drawing of times remembers (`training_times.Times`); often ().
    """

    step: jax.Array
    params: Any
    ema: Any
    optimizer: optax.OptState
    memory: Any = ()


def init_state(init: Callable, optimizer: optax.GradientTransformation, times: Times, key) -> TrainState:
    """The state before the first update, from `init(key) -> params`, in one compiled function."""

    def initial(key):
        params = init(key)
        return TrainState(jnp.zeros((), jnp.int32), params, params, optimizer.init(params), times.init())

    return jax.jit(initial)(key)


def update_ema(ema, params, step, decay: float):
    """`ema` after the update number `step` (0-based) that led to `params`; the first one copies.

    The random start is then never a part of the average (DDPM's appendix B takes decay = 0.9999).
    """
    # As a move toward `value`: what does not change is then its own average, exactly.
    return jax.tree.map(
        lambda average, value: jnp.where(step == 0, value, average + (1 - decay) * (value - average)), ema, params
    )
