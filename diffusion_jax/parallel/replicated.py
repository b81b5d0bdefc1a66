"""One program on one or many devices: data parallelism through `pmap`.

The training step runs on one device's share of the batch, with `axis_name=AXIS`; the state is replicated
(`in_axes=None`) and has no device axis, so a checkpoint does not know how many devices wrote it. What the step knows
of the other devices is in its `Shares`: `sharded.Sharded` gives it others, and spreads the state.
"""

import functools
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Derive, SampleFn, ShareLoss, ShareSlope, Slope, TrainStep, TrainSteps, Tree
from diffusion_jax.parallel import calls

AXIS = "batch"


class Shares(NamedTuple):
    """How a training step sees the global batch of B examples, of which it is given b.

    Attributes:
      indices: `b -> int32 [b]`, where its examples stand in the global batch.
      size: `b -> B`.
      batch: `tree [b, ...] -> tree [B, ...]`, every device's arrays in order.
      peers: the same, within a loss that `slope` is given.
      slope: `(loss, derive) -> ((params, beside, *batch) -> ((value, aux), gradients))`, means over the global batch;
        `loss(params, beside, *batch) -> (value, aux)` and what `derive` makes of it, a function like the result, are
        means over one device's share. `aux` is a tree of arrays [b, ...]; `beside` one of constants, as large as
        parameters.
    """

    indices: Callable[[int], jax.Array]
    size: Callable[[int], int]
    batch: Callable[[Tree], Tree]
    peers: Callable[[Tree], Tree]
    slope: Slope


def global_indices(size: int) -> jax.Array:
    """int32 [size]: where this device's `size` examples stand in the global batch. Inside `pmap` only."""
    return jax.lax.axis_index(AXIS) * size + jnp.arange(size)


def global_size(size: int) -> int:
    """The global batch where each device has `size` examples. Inside `pmap` only."""
    return jax.lax.psum(size, AXIS)


def global_batch(tree: Tree) -> Tree:
    """Every device's arrays [b, ...] as those of the global batch, [B, ...], in order. Under the axis `AXIS` only."""
    return jax.lax.all_gather(tree, AXIS, tiled=True)


def mean_slope(loss: ShareLoss, derive: Derive) -> ShareSlope:
    """The slope of every device's share, averaged. Inside `pmap` only."""
    slope = derive(loss)

    def mean(params, beside, *batch):
        (value, each), gradients = slope(params, beside, *batch)
        value, gradients = jax.lax.pmean((value, gradients), AXIS)
        return (value, each), gradients

    return mean


MAPPED = Shares(global_indices, global_size, global_batch, global_batch, mean_slope)


def to_host(tree: Tree) -> Tree:
    """`tree` as NumPy arrays, whichever devices of whichever hosts it is spread over.

    Every host must call it, and gets everything: its memory must hold the tree. What lies on other hosts is gathered
    one leaf at a time, so that a device has to hold only one.
    """

    def gather(x):
        there = isinstance(x, jax.Array) and not (x.is_fully_addressable or x.is_fully_replicated)
        return multihost_utils.process_allgather(x, tiled=True) if there else x

    return jax.tree.map(np.asarray, jax.device_get(jax.tree.map(gather, tree)))


def check_divides(batch_size: int, total: int) -> None:
    """Raise `InputError` unless a global batch divides evenly over `total` devices."""
    if batch_size < 1 or batch_size % total:
        raise InputError(
            f"batch size {batch_size} is not divisible by {total} devices; "
            f"take {max(1, batch_size // total) * total} or {(batch_size // total + 1) * total}"
        )


class DataParallel:
    """Compiles functions for `devices` of this host (all of them by default), and puts arrays there.

    With several hosts (`jax.distributed`) it must be all; every host passes its own block of the batch.

    Attributes:
      shares: what `make_train_step` has to know for `train_step`.
      devices: those that samples are split over.
      total: devices that a global batch of training is split over.
      programs: into how many programs a batch of samples is split; each sees its share.
      joins: whether this host takes part where samples are drawn during training. The others need not wait.
    """

    shares = MAPPED

    def __init__(self, devices: Sequence[jax.Device] | None = None):
        self._subset = devices
        self.devices = list(devices or jax.local_devices())
        self.total = len(self.devices) * jax.process_count()
        self.programs = len(self.devices)
        self.joins = jax.process_index() == 0
        mesh = Mesh(np.array(self.devices), (AXIS,))
        self._replicated = NamedSharding(mesh, PartitionSpec())
        self._sharded = NamedSharding(mesh, PartitionSpec(AXIS))

    def check_batch_size(self, batch_size: int) -> None:
        """Raise `InputError` unless the global `batch_size` divides evenly over all devices of all hosts."""
        check_divides(batch_size, self.total)

    def make(self, function: Callable[..., Tree], *args: Tree) -> Tree:
        """`function(*args)`, a pytree of arrays, compiled; `hold` it before it is donated."""
        return jax.jit(function)(*args)

    def hold(self, tree: Tree) -> Tree:
        """Copies of `tree` on every device, ready to be donated: no buffer is shared with the original."""
        return jax.device_put(jax.tree.map(np.asarray, tree), self._replicated)

    def place(self, tree: Tree) -> Tree:
        """`tree` on every device, for reading: what is there already is not copied."""
        return jax.device_put(tree, self._replicated)

    def gather(self, params: Tree) -> Tree:
        """`params` as a network takes them, within a function that `sample` compiles: they are whole already."""
        return params

    def sampling(self) -> "DataParallel":
        """What draws samples during training: all of this host's devices, without the other hosts."""
        return DataParallel(jax.local_devices())

    def shard(self, batch: Tree) -> Tree:
        """Split the leading axis of every array of `batch` over the devices: [b, ...] -> [D, b / D, ...].

        Does not block: the copies overlap with whatever the devices are doing.
        """
        count = len(self.devices)
        split = jax.tree.map(lambda x: np.reshape(x, (count, x.shape[0] // count, *x.shape[1:])), batch)
        return jax.device_put(split, self._sharded)

    def train_step(self, step: TrainStep) -> TrainStep:
        """Compile `(state, batch, held={}) -> (state, metrics)`. The state is donated: use the returned one."""
        in_axes, out_axes = (None, 0, None), (None, None)
        compiled = jax.pmap(step, AXIS, in_axes=in_axes, out_axes=out_axes, donate_argnums=0, devices=self._subset)
        return lambda state, batch, held=MappingProxyType({}): compiled(state, batch, dict(held))

    def train_steps(self, step: TrainStep, most: int) -> TrainSteps:
        """Compile `(state, batches, held={}) -> (state, metrics [most])`: an update for each of 1 to `most` batches.

        One call makes them all, in turn (`calls.in_turn`). The given state is donated: use the returned one.

        Args:
          step: `(state, batch, held) -> (state, metrics)`.
          most: how many batches a call may be given.
        """
        in_axes, out_axes = (None, 0, None, None), (None, None)
        steps = calls.in_turn(step, most)
        compiled = jax.pmap(steps, AXIS, in_axes=in_axes, out_axes=out_axes, donate_argnums=0, devices=self._subset)
        return calls.filled(compiled, most)

    def sample(self, sample_fn: SampleFn) -> SampleFn:
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
