"""Steps as learned vectors, one for each entry of a table."""

import jax
import jax.numpy as jnp
from flax import linen as nn


class TimeTable(nn.Module):
    """The row of the nearest whole step: time [B], in 0, ..., num - 1 -> float32 [B, features].

    Attributes:
      num: how many steps there are.
    """

    num: int

    @nn.compact
    def __call__(self, time: jax.Array, features: int) -> jax.Array:
        rows = self.param("weight", nn.initializers.normal(1.0), (self.num, features), jnp.float32)
        return rows[jnp.rint(time).astype(jnp.int32)]
