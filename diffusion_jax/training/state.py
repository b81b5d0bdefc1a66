"""What training changes from step to step."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion_jax.core.protocols import InitFn
from diffusion_jax.diffusion.time_sampling import Times


class TrainState(NamedTuple):
    """A pytree of arrays.

    Attributes:
      step: int32 scalar, the number of updates made.
      params: the network's parameters, float32.
      ema: their exponential moving average, of the same structure; what samples are drawn with.
      optimizer: the optimiser's state.
      memory: what the drawing of times remembers (`time_sampling.Times`); often ().
      averages: further averages of the parameters, name -> the same structure (`Optimization.averages`); often none.
    """

    step: jax.Array | np.int32
    params: Any
    ema: Any
    optimizer: optax.OptState
    memory: Any = ()
    averages: Any = {}  # noqa: RUF012 (never changed in place)


def init_state(
    init: InitFn,
    optimizer: optax.GradientTransformation,
    times: Times,
    key: jax.Array,
    averages: Iterable[str] = (),
) -> TrainState:
    """The state before the first update, from `init(key) -> params`, in one compiled function.

    `averages` are the names of the further ones.
    """

    def initial(key):
        params = init(key)
        return TrainState(
            jnp.zeros((), jnp.int32),
            params,
            params,
            optimizer.init(params),
            times.init(),
            dict.fromkeys(averages, params),
        )

    return jax.jit(initial)(key)
