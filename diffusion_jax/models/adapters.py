"""Networks of other libraries, called as ours are.

A method takes any object with Flax Linen's two methods (`core.protocols.Network`): parameters are a nested
dictionary of arrays.
"""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx as flax_nnx

from diffusion_jax.core.protocols import Apply, InitParams


class Functions:
    """Two plain functions as a network: `init(key, x, time, *cond) -> params`, `apply(params, x, time, *cond)`.

    In training `apply` is given `dropout_keys` too, a key an example.
    """

    def __init__(self, init: InitParams, apply: Apply):
        self._init, self._apply = init, apply

    def init(self, key: jax.Array, *shown) -> dict[str, Any]:
        """As of `core.protocols.Network`."""
        return {"params": self._init(key, *shown)}

    def apply(self, variables: Any, *shown, **dropout_keys):
        """As of `core.protocols.Network`."""
        return self._apply(variables["params"], *shown, **dropout_keys)


def nnx(make: Callable[[flax_nnx.Rngs], flax_nnx.Module]) -> Functions:
    """A Flax NNX module as a network, with its `nnx.Param`s as parameters.

    Other variables of the module, but for its random keys, stay as they were made: what changes in a call is lost.

    Args:
      make: `nnx.Rngs -> module`, called (x, time, *cond).
    """

    def split(key):
        return flax_nnx.split(make(flax_nnx.Rngs(key)), flax_nnx.Param, ...)

    def init(key, *shown):
        return flax_nnx.to_pure_dict(split(key)[1])

    def apply(params, *shown, dropout_keys=None):
        graph, state, rest = split(jax.random.key(0))  # what is made again here and not used, XLA leaves out
        flax_nnx.replace_by_pure_dict(state, params)
        return flax_nnx.merge(graph, state, rest)(*shown)

    return Functions(init, apply)
