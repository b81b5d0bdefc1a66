"""Hand batches to the device before they are needed, without losing one's place."""

import collections
from collections.abc import Callable
from typing import Any

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Tree


def prefetch(iterator: Any, put: Callable[[Tree], Tree], size: int = 2):
    """Keeps `size` batches on the device, waiting behind the one that is being used.

    A checkpoint must hold the position of what was *used*; `iterator` itself has already run ahead. So every
    batch comes with the state that continues right after it.

    Args:
      iterator: batches, with a `get_state()`, such as `pipeline.batches` returns.
      put: ``put(batch) -> device_batch``, for instance `jax.device_put` with a sharding. It should not block.
      size: how many batches wait; 0 puts each one when it is asked for.

    Yields:
      (device_batch, state): after ``iterator.set_state(state)`` the next batch is the one after this.

    Raises:
      InputError: of `iterator`, after all that came before it.
    """
    waiting: collections.deque[tuple[Tree, Any]] = collections.deque()
    try:
        for batch in iterator:
            waiting.append((put(batch), iterator.get_state()))
            if len(waiting) > size:
                yield waiting.popleft()
    except InputError:  # the batches before the one that could not be read are whole
        yield from waiting
        raise
    yield from waiting
