"""A network of one time as one of two: it is told the second as a condition."""

from typing import Any


class TwoTimes:
    """A network of (x, (time [B], interval [B]), *cond), of one that is told the condition "interval", float [B].

    For flow maps: what lies `interval` further. Its parameters are the network's own.

    Args:
      network: any (`adapters.Network`) that listens to "interval": `UNet(embed={"interval": NumberEmbedding()})`
        (`blocks.conditioning`), and others with a field `embed`.
    """

    def __init__(self, network: Any):
        self.network = network

    def init(self, key, x, times, *cond):
        """As of `Network`."""
        return self.network.init(key, x, *told(times, *cond))

    def apply(self, variables, x, times, *cond, **dropout_keys):
        """As of `Network`."""
        return self.network.apply(variables, x, *told(times, *cond), **dropout_keys)


def told(times, cond=None):
    """(time, condition) of a pair of times and a condition."""
    time, interval = times
    return time, {**(cond or {}), "interval": interval}
