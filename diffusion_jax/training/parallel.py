"""One program on one or many devices: data parallelism through `pmap`.

The training step is written for one device's share of the batch, with `axis_name=AXIS`; the state is
replicated (`in_axes=None`) and has no device axis, so a checkpoint does not know how many devices wrote it.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffusion_jax.errors import InputError

AXIS = "batch"


def global_indices(size: int) -> jax.Array:
    """int32 [size]: where this device's `size` examples stand in the global batch. Inside `pmap` only."""
    return jax.lax.axis_index(AXIS) * size + jnp.arange(size)


def global_size(size: int) -> int:
    """The global batch where each device has `size` examples. Inside `pmap` only."""
    return jax.lax.psum(size, AXIS)


def global_batch(tree):
    """Every device's arrays [b, ...] as those of the global batch, [B, ...], in order. Inside `pmap` only."""
    return jax.lax.all_gather(tree, AXIS, tiled=True)


class DataParallel:
    """Compiles functions for `devices` of this host (all of them by default), and puts arrays there.

    With several hosts (`jax.distributed`) it must be all; every host passes its own block of the batch.
    """

    def __init__(self, devices=None):
        self._subset = devices
        self.devices = list(devices or jax.local_devices())
        mesh = Mesh(np.array(self.devices), (AXIS,))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._sharded = NamedSharding(mesh, PartitionSpec(AXIS))

    def check_batch_size(self, batch_size: int):
        """Raise `InputError` unless the global `batch_size` divides evenly over all devices of all hosts."""
        total = len(self.devices) * jax.process_count()
        if batch_size < 1 or batch_size % total:
            raise InputError(
                f"batch size {batch_size} is not divisible by {total} devices; "
                f"take {max(1, batch_size // total) * total} or {(batch_size // total + 1) * total}"
            )

    def replicate(self, tree):
        """Copies of `tree` on every device, ready to be donated: no buffer is shared with the original."""
        return jax.device_put(jax.tree.map(np.asarray, tree), self._replicated)

    def place(self, tree):
        """`tree` on every device, for reading: what is there already is not copied."""
        return jax.device_put(tree, self._replicated)

    def shard(self, batch):
        """Split the leading axis of every array of `batch` over the devices: [b, ...] -> [D, b / D, ...].

        Does not block: the copies overlap with whatever the devices are doing.
        """
        count = len(self.devices)
        split = jax.tree.map(lambda x: np.reshape(x, (count, x.shape[0] // count, *x.shape[1:])), batch)
        return jax.device_put(split, self._sharded)

    def train_step(self, step: Callable) -> Callable:
        """Compile `(state, batch) -> (state, metrics)`. The given state is donated: use the returned one."""
        return jax.pmap(
            step, AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=0, devices=self._subset
        )

    def sample(self, sample_fn: Callable) -> Callable:
        """Compile `(params, keys [B], *cond [B, ...]) -> images [B, ...]`, each device drawing its share of the keys.

        Args:
          sample_fn: `(params, keys [B / D], *cond) -> pytree` whose arrays lead with the batch axis.
        """
        count = len(self.devices)

        def split(x):
            return x.reshape(count, -1, *x.shape[1:])

        @functools.partial(jax.pmap, axis_name=AXIS, in_axes=(None, 0), devices=self._subset)
        def mapped(params, shares):
            return sample_fn(params, *shares)

        def sample(params, keys, *cond):
            shards = mapped(params, jax.tree.map(split, (keys, *cond)))
            return jax.tree.map(lambda x: np.reshape(x, (-1, *x.shape[2:])), jax.device_get(shards))

        return sample
