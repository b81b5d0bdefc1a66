"""A network of one time as one of two: it is told the second as a condition."""

from collections.abc import Mapping
from typing import Any

import jax

from diffusion_jax.core.protocols import Network


class TwoTimes:
    """A network of (x, (time [B], interval [B]), *cond), of one that is told the condition "interval", float [B].

    For flow maps: what lies `interval` further. Its parameters are the network's own.

    Args:
      network: any (`adapters.Network`) that listens to "interval": `UNet(embed={"interval": NumberEmbedding()})`
        (`blocks.conditioning`), and others with a field `embed`.
    """

    def __init__(self, network: Network):
        self.network = network

    def init(self, key: jax.Array, x: Any, times: Any, /, *cond: Any) -> Any:
        """As of `Network`."""
        return self.network.init(key, x, *told(times, *cond))

    def apply(self, variables: Any, x: Any, times: Any, /, *cond: Any, dropout_keys: Any = None) -> Any:
        """As of `Network`."""
        return self.network.apply(variables, x, *told(times, *cond), dropout_keys=dropout_keys)


def told(times: tuple[Any, Any], cond: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    """(time, condition) of a pair of times and a condition."""
    time, interval = times
    return time, {**(cond or {}), "interval": interval}
