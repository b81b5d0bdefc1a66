"""Fully sharded data parallelism: every device holds its share of the batch and of the state.

Parameters, averages and the optimiser's state are split over all devices of all hosts (ZeRO's third stage,
Rajbhandari et al. 2020; FSDP). Where the loss needs a parameter it is gathered, in the backward pass once more; what
comes back is the sum of its gradients over devices, and of it only the share that the device updates.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from diffusion_jax.core.protocols import (
    Derive,
    Parallel,
    SampleFn,
    ShareLoss,
    ShareSlope,
    TrainStep,
    TrainSteps,
    Tree,
)
from diffusion_jax.parallel import calls
from diffusion_jax.parallel.replicated import AXIS, DataParallel, Shares, check_divides, global_batch, to_host

LEAST = 2**16  # entries: smaller arrays cost more to gather than to keep

# Parameters are the same in every turn of a loop, and XLA would gather them before it and keep them all.
_OPTIONS = {"xla_disable_hlo_passes": "while-loop-invariant-code-motion"}


def parallel_for(fsdp: bool, devices: Sequence[jax.Device] | None = None) -> Parallel:
    """What compiles for `devices`: `Sharded` or `DataParallel`."""
    return Sharded(devices) if fsdp else DataParallel(devices)


def spec(shape: Sequence[int], count: int, least: int = LEAST) -> PartitionSpec:
    """How an array of `shape` is split over `count` devices: along the largest axis that they divide.

    Of equal axes the first. Arrays of fewer than `least` entries, and such without an axis that `count` divides, are
    on every device as a whole.
    """
    divided = [axis for axis, size in enumerate(shape) if size and size % count == 0]
    if math.prod(shape) < least or not divided:
        return PartitionSpec()
    axis = max(divided, key=lambda axis: (shape[axis], -axis))
    return PartitionSpec(*[None] * axis, AXIS)


class Sharded:
    """`DataParallel` with the state spread over `devices` (all of all hosts by default).

    Nothing is ever whole on one device but the arrays that are too small, and each parameter while it is used. Every
    host must call every method, with its own block of the batch where a batch is taken.

    Args:
      devices: those to use; with several hosts it must be all.
      least: entries from which on an array is split (`spec`).

    Attributes:
      as of `DataParallel`.
    """

    programs = 1
    joins = True

    def __init__(self, devices: Sequence[jax.Device] | None = None, least: int = LEAST):
        # Hosts in order: each one's block of the batch is on its own devices.
        self.devices = sorted(devices or jax.devices(), key=lambda device: (device.process_index, device.id))
        self.total = len(self.devices)
        self.shares = Shares(jnp.arange, lambda size: size, lambda tree: tree, global_batch, self._slope)
        self._least = least
        self._mesh = Mesh(np.array(self.devices), (AXIS,))
        self._rows = NamedSharding(self._mesh, PartitionSpec(AXIS))

    def check_batch_size(self, batch_size: int) -> None:
        """Raise `InputError` unless the global `batch_size` divides evenly over all devices of all hosts."""
        check_divides(batch_size, self.total)

    def make(self, function: Callable[..., Tree], *args: Tree) -> Tree:
        """`function(*args)`, a pytree of arrays, computed where they will be."""
        return jax.jit(function, out_shardings=self._shardings(jax.eval_shape(function, *args)))(*args)

    def hold(self, tree: Tree) -> Tree:
        """`tree`, the same on every host, spread over the devices and ready to be donated.

        No buffer is shared with the original, and each device is sent its share only.
        """

        def put(x):
            host = to_host(x)
            return jax.make_array_from_callback(host.shape, self._sharding(x), lambda index: np.array(host[index]))

        return jax.tree.map(put, tree)

    def place(self, tree: Tree) -> Tree:
        """`tree` spread over the devices, for reading: what is there already is not copied."""

        def put(x):
            wanted = self._sharding(x)
            return x if getattr(x, "sharding", None) == wanted else self._put(to_host(x), wanted)

        return jax.tree.map(put, tree)

    def gather(self, params: Tree) -> Tree:
        """`params`, gathered, as a network takes them, within a function that `sample` compiles."""
        return jax.lax.with_sharding_constraint(params, NamedSharding(self._mesh, PartitionSpec()))

    def sampling(self) -> "Sharded":
        """What draws samples during training: the same devices, for no host has all parameters."""
        return self

    def shard(self, batch: Tree) -> Tree:
        """Split the leading axis of every array of `batch` over the devices: this host's [b, ...] -> [B, ...].

        Does not block: the copies overlap with whatever the devices are doing.
        """
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self._rows, np.asarray(x)), batch)

    def train_step(self, step: TrainStep) -> TrainStep:
        """Compile `(state, batch, held={}) -> (state, metrics)`. The state is donated: use the returned one."""
        return jax.jit(self._staying(step), donate_argnums=0, compiler_options=_OPTIONS)

    def train_steps(self, step: TrainStep, most: int) -> TrainSteps:
        """Compile `(state, batches, held={}) -> (state, metrics [most])`: an update for each of 1 to `most` batches.

        One call makes them all, in turn (`calls.in_turn`). The given state is donated: use the returned one.

        Args:
          step: `(state, batch, held) -> (state, metrics)`.
          most: how many batches a call may be given.
        """
        steps = calls.in_turn(self._staying(step), most)
        return calls.filled(jax.jit(steps, donate_argnums=0, compiler_options=_OPTIONS), most)

    def _staying(self, step: TrainStep) -> TrainStep:
        """`step`, whose state is spread after it as before."""

        def staying(state, batch, held={}):  # noqa: B006 (jit takes no other mapping; never changed)
            after, metrics = step(state, batch, held)
            metrics = jax.lax.with_sharding_constraint(metrics, NamedSharding(self._mesh, PartitionSpec()))
            return jax.lax.with_sharding_constraint(after, self._shardings(after)), metrics

        return staying

    def sample(self, sample_fn: SampleFn) -> SampleFn:
        """Compile `(params, keys [B], *cond [B, ...]) -> images [B, ...]`, parameters and examples spread.

        Parameters are gathered where the function says so, by `gather`. Elsewhere the compiler is free: where a
        layer's parameters are larger than all that it is given, it may split its channels instead of the examples.

        Args:
          sample_fn: `(params, keys [B], *cond) -> pytree` whose arrays lead with the batch axis.
        """

        compiled = jax.jit(sample_fn, out_shardings=self._rows, compiler_options=_OPTIONS)

        def sample(params, keys, *cond):
            return to_host(compiled(self.place(params), *self.split((keys, *cond))))

        return sample

    def split(self, rows: Tree) -> Tree:
        """Arrays [B, ...], the same on every host, split along their leading axis over the devices; keys as well."""

        def put(x):
            if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(put(jax.random.key_data(x)), impl=jax.random.key_impl(x))
            return self._put(np.asarray(x), self._rows)

        return jax.tree.map(put, rows)

    def _slope(self, loss: ShareLoss, derive: Derive) -> ShareSlope:
        """`Shares.slope`, from the whole batch and arrays that are spread."""

        def slope(params, beside, *batch):
            specs, others = (jax.tree.map(self._spec, tree) for tree in (params, beside))

            # Gathered parameters are not kept for the backward pass: then all would be there at once.
            @partial(jax.checkpoint, policy=lambda primitive, *_, **__: primitive.name != "all_gather")
            def gathered(shards, beside, *share):
                return loss(jax.tree.map(_gather, shards, specs), jax.tree.map(_gather, beside, others), *share)

            of_share = derive(gathered)

            def mean(shards, beside, *share):
                (value, each), gradients = of_share(shards, beside, *share)
                gradients = jax.tree.map(self._mean, gradients, specs)
                return (jax.lax.pmean(value, AXIS), each), gradients

            rows = PartitionSpec(AXIS)
            return jax.shard_map(
                mean,
                mesh=self._mesh,
                in_specs=(specs, others, *[rows] * len(batch)),
                out_specs=((PartitionSpec(), rows), specs),
                check_vma=False,
            )(params, beside, *batch)

        return slope

    def _spec(self, x) -> PartitionSpec:
        return spec(np.shape(x), self.total, self._least)

    def _mean(self, gradient, spec: PartitionSpec):
        # The derivative of a gathered array is a sum over devices already; that of a whole one is this device's.
        return gradient / self.total if AXIS in spec else jax.lax.pmean(gradient, AXIS)

    def _sharding(self, x) -> NamedSharding:
        return NamedSharding(self._mesh, self._spec(x))

    def _shardings(self, tree):
        return jax.tree.map(self._sharding, tree)

    def _put(self, x: np.ndarray, sharding: NamedSharding):
        return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def _gather(shard, spec: PartitionSpec):
    return jax.lax.all_gather(shard, AXIS, axis=spec.index(AXIS), tiled=True) if AXIS in spec else shard
