"""Functions that are compiled for several devices. The global batch has B examples, a device's share of it b."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax

from diffusion_jax.core.protocols.samplers import SampleFn
from diffusion_jax.core.protocols.values import Tree


class ShareLoss(Protocol):
    """`(params, beside, *batch [b, ...]) -> (value, aux [b, ...])`; `beside` are constants."""

    def __call__(self, params: Tree, beside: Tree, /, *batch: Tree) -> tuple[jax.Array, Tree]: ...


class ShareSlope(Protocol):
    """`(params, beside, *batch [b, ...]) -> ((value, aux [b, ...]), gradients)`."""

    def __call__(self, params: Tree, beside: Tree, /, *batch: Tree) -> tuple[tuple[jax.Array, Tree], Tree]: ...


class Derive(Protocol):
    """`loss -> slope`, both of one device's share."""

    def __call__(self, loss: ShareLoss, /) -> ShareSlope: ...


class Slope(Protocol):
    """`(loss, derive) -> slope`, whose value and gradients are means over the global batch."""

    def __call__(self, loss: ShareLoss, derive: Derive, /) -> ShareSlope: ...


class TrainStep(Protocol):
    """`(state, batch, held) -> (state, metrics)`; `held` are arrays that nothing trains."""

    def __call__(self, state: Any, batch: Tree, held: Mapping = ..., /) -> tuple[Any, Tree]: ...


class TrainSteps(Protocol):
    """`(state, batches, held) -> (state, metrics [most])`: an update for each batch of 1 to `most`, in turn."""

    def __call__(self, state: Any, batches: Sequence[Tree], held: Mapping = ..., /) -> tuple[Any, Tree]: ...


class StepsInTurn(Protocol):
    """`(state, batches, count, held) -> (state, metrics [most])`: with the first `count` of `most` batches."""

    def __call__(self, state: Any, batches: tuple, count: Any, held: Mapping, /) -> tuple[Any, Tree]: ...


class Parallel(Protocol):
    """What compiles functions for devices and puts arrays there (`parallel.DataParallel`, `parallel.Sharded`)."""

    @property
    def shares(self) -> Any:
        """How a training step sees the global batch (`parallel.replicated.Shares`)."""

    @property
    def devices(self) -> Sequence[jax.Device]:
        """Those that samples are split over."""

    @property
    def total(self) -> int:
        """Devices that a global batch of training is split over."""

    @property
    def programs(self) -> int:
        """Into how many programs a batch of samples is split."""

    @property
    def joins(self) -> bool:
        """Whether this host takes part where samples are drawn during training."""

    def check_batch_size(self, batch_size: int) -> None:
        """Raise `InputError` unless `total` divides it."""

    def make(self, function: Any, *args: Any) -> Tree:
        """`function(*args)`, compiled."""

    def hold(self, tree: Tree) -> Tree:
        """Copies that may be donated."""

    def place(self, tree: Tree) -> Tree:
        """`tree`, for reading."""

    def gather(self, params: Tree) -> Tree:
        """`params`, whole, within a function that `sample` compiles."""

    def sampling(self) -> "Parallel":
        """What draws samples during training."""

    def shard(self, batch: Tree) -> Tree:
        """A batch, split over the devices."""

    def train_step(self, step: TrainStep) -> TrainStep:
        """`step`, compiled; the state is donated."""

    def train_steps(self, step: TrainStep, most: int) -> TrainSteps:
        """Up to `most` steps a call, compiled; the state is donated."""

    def sample(self, sample_fn: SampleFn) -> SampleFn:
        """`sample_fn`, compiled: each device draws its share."""
