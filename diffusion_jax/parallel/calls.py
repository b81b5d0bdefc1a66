"""How many updates one call of a compiled program makes, and which.

A call costs the host a time for every array on every device, however little there is to compute. A program that
makes several updates, one after another, costs it once.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.protocols import StepsInTurn, TrainStep, TrainSteps


def in_turn(step: TrainStep, most: int) -> StepsInTurn:
    """`(state, batches, count, held) -> (state, metrics)`: an update with each of the first `count` batches, in turn.

    What is learned does not depend on where calls end, to the bit.

    Args:
      step: `(state, batch, held) -> (state, metrics)`.
      most: batches there are, of which `count`, int32, says how many are looked at. With 1 nothing is looped, and
        bits may differ from those of others.

    Returns:
      The function; its metrics are `[most]`, zero from `count` on.
    """

    def once(state, batches, count, held):
        state, metrics = step(state, batches[0], held)
        return state, jax.tree.map(lambda x: x[None], metrics)

    traced = jax.jit(step, inline=True)  # once, for the shapes of its metrics and for the loop

    def repeatedly(state, batches, count, held):
        rows = jax.tree.map(lambda *x: jnp.stack(x), *batches)

        def update(i, carried):
            state, found = carried
            state, metrics = traced(state, jax.tree.map(lambda x: x[i], rows), held)
            return state, jax.tree.map(lambda all, one: all.at[i].set(one), found, metrics)

        _, metrics = jax.eval_shape(traced, state, batches[0], held)
        nothing = jax.tree.map(lambda x: jnp.zeros((most, *x.shape), x.dtype), metrics)
        return jax.lax.fori_loop(0, count, update, (state, nothing))

    return repeatedly if most > 1 else once


def filled(compiled: StepsInTurn, most: int) -> TrainSteps:
    """`(state, batches, held={}) -> (state, metrics [most])` of a compiled `in_turn`, for any 1 to `most` batches."""

    def steps(state, batches: Sequence, held: Mapping = MappingProxyType({})):
        unseen = [batches[-1]] * (most - len(batches))  # not looked at: no copies
        return compiled(state, (*batches, *unseen), np.int32(len(batches)), dict(held))

    return steps


def plan(start: int, total: int, most: int, events: Iterable[int]) -> Iterator[range]:
    """The steps of each call, `start` + 1 to `total`: at most `most`, and none beyond a multiple of an event's.

    Args:
      events: every how many steps something is due between two steps; 0 for never.
    """
    events, done = [every for every in events if every], start
    while done < total:
        end = min(done + most, total, *((done // every + 1) * every for every in events))
        yield range(done + 1, end + 1)
        done = end


def due(step: int, every: int) -> bool:
    """Whether what is done every so many steps, or never for 0, is done after `step`."""
    return every > 0 and step % every == 0
