"""A network of one time as one of two: it is told the second as a condition."""

from collections.abc import Mapping
from typing import Any

import jax
from flax import linen as nn

from diffusion_jax.core.protocols import Network
from diffusion_jax.models.blocks.conditioning import NumberEmbedding


class TwoTimes:
    """A network of (x, (time [B], interval [B]), *cond), of one that is told the condition "interval", float [B].

    For flow maps: what lies `interval` further. Its parameters are the network's own.

    Args:
      network: any (`adapters.Network`) that listens to "interval"; `listening` makes one of a network of one time.
    """

    def __init__(self, network: Network):
        self.network = network

    def init(self, key: jax.Array, x: Any, times: Any, /, *cond: Any) -> Any:
        """As of `Network`."""
        return self.network.init(key, x, *told(times, *cond))

    def apply(self, variables: Any, x: Any, times: Any, /, *cond: Any, dropout_keys: Any = None) -> Any:
        """As of `Network`."""
        return self.network.apply(variables, x, *told(times, *cond), dropout_keys=dropout_keys)


def listening(network: nn.Module) -> TwoTimes:
    """`network`, a module with a field `embed`, told the interval as it is told the time (`NumberEmbedding`)."""
    return TwoTimes(network.clone(embed={"interval": NumberEmbedding(), **network.embed}))


def told(times: tuple[Any, Any], cond: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    """(time, condition) of a pair of times and a condition."""
    time, interval = times
    return time, {**(cond or {}), "interval": interval}
