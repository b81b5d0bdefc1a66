"""Functions of a user that a run calls at intervals."""

from collections.abc import Callable
from typing import Any, NamedTuple

from diffusion_jax.training.state import TrainState


class Hook(NamedTuple):
    """Called between two calls of the compiled steps, on every host; a config file may give some: `hooks(config,
    workdir) -> [Hook, ...]`.

    It is called before the checkpoint of its step is written. If a run is killed between the two, the resumed run
    calls the hook again: a hook sees every step that it is due at, some of them twice, with the same state.

    Attributes:
      every: steps between its calls; 0 for the end alone. It is called at the end in any case, but not where a signal
        stops the run.
      call: `(step, state: TrainState)`. The state is on the devices, all its metrics are finite, and the next call
        takes its memory: `parallel.replicated.to_host` makes a copy; every host must call it.
    """

    every: int
    call: Callable[[int, TrainState], Any]
