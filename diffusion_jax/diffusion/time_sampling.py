"""The times at which networks are trained: which law they follow, and how a batch draws from it.

A law is its quantile function `u -> t`, of u in [0, 1) and element by element; t lies in (0, 1]. A `Times` draws the
times of a batch with it, one by one or spread evenly, or learns where the loss is large. In place of one time a law
may give a tree of arrays like u, where a loss looks at several (`few_step`).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from numpy.typing import ArrayLike

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import DrawTimes, InitMemory, Law, UpdateMemory

# ---- Laws: u -> t.


def uniform(first: float = 1e-5) -> Law:
    """Uniform over [first, 1]."""
    return lambda u: first + (1 - first) * u


def table(num: int) -> Law:
    """Uniform over the times 1 / num, ..., 1 of a table (DDPM's Algorithm 1, line 3)."""
    return lambda u: (jnp.floor(u * num) + 1) / num


def among(times: ArrayLike) -> Law:
    """Uniform over the given times, [N]."""
    times = np.asarray(times, np.float32)
    return lambda u: jnp.asarray(times)[jnp.floor(u * len(times)).astype(jnp.int32)]


def logit_normal(mean: float = 0.0, std: float = 1.0) -> Law:
    """t = sigmoid(mean + std n), most often in the middle (Esser et al. 2024, section 3.1)."""
    return lambda u: jax.nn.sigmoid(mean + std * normal(u))


def log_normal(sigma_max: float = 80.0, mean: float = -1.2, std: float = 1.2) -> Law:
    """For `schedules.edm`: log sigma ~ N(mean, std^2), at most sigma_max (Karras et al. 2022, table 1)."""
    return lambda u: jnp.minimum(jnp.exp(mean + std * normal(u)) / sigma_max, 1.0)


def normal(u: jax.Array) -> jax.Array:
    """The standard normal quantile, cut off at +-5.2: u = 0 does occur, and is no time."""
    return ndtri(jnp.clip(u, 1e-7, 1 - 1e-7))


# ---- How a batch draws from a law.


class Times(NamedTuple):
    """How the times of a batch are drawn.

    Attributes:
      init: `() -> memory`, a pytree of arrays that training keeps and saves; () where nothing is remembered.
      draw: `(memory, key, index [b], total) -> (t [b], weight [b])`, for the examples that stand at `index` in the
        global batch of `total`; `key` belongs to the whole batch. The loss of each is multiplied by its weight.
      update: `(memory, t [total], losses [total]) -> memory`, with the unweighted losses of the global batch.
    """

    init: InitMemory
    draw: DrawTimes
    update: UpdateMemory


def independent(law: Law) -> Times:
    """Each example draws for itself."""

    def draw(key, index, total):
        return law(jax.vmap(jax.random.uniform)(rng.per_example(key, index)))

    return forgetful(draw)


def stratified(law: Law) -> Times:
    """The quantiles of a batch are evenly spaced, from a common random start (VDM, Kingma et al. 2021, appendix I.1).

    Each t has the same law as if it were independent, and the mean over a batch varies less.
    """

    def draw(key, index, total):
        return law((jax.random.uniform(key) + index / total) % 1.0)

    return forgetful(draw)


def none() -> Times:
    """No times, for a loss that looks at none: `Context.t` is an empty tree."""
    return forgetful(lambda key, index, total: ())


def forgetful(draw: Callable[[jax.Array, jax.Array, int], Any]) -> Times:
    """Times drawn by `(key, index [b], total) -> t`, a [b] or a tree of them, that remember and weigh nothing."""

    def weighted(memory, key, index, total):
        return draw(key, index, total), jnp.ones(index.shape)

    return Times(init=lambda: (), draw=weighted, update=lambda memory, t, losses: memory)


class History(NamedTuple):
    """The last losses at each time of a table: float32 [num, kept], and how many there were in all, int32 [num]."""

    losses: jax.Array
    count: jax.Array  # type: ignore[assignment]  # tuples have a method of the name


def loss_aware(num: int, kept: int = 10, floor: float = 1e-3) -> Times:
    """Times of a table in proportion to sqrt(E[loss^2]): importance sampling with the least variance.

    (Improved DDPM, Nichol & Dhariwal 2021, section 3.3, for L_vlb.) A weight of 1 / (num p) keeps the mean. Uniform
    until every time has been met `kept` times, and with the share `floor` ever after.

    Raises:
      InputError: unless num >= 1, kept >= 1 and 0 <= floor <= 1.
    """
    if not (num >= 1 and kept >= 1 and 0 <= floor <= 1):
        raise InputError(f"need num >= 1, kept >= 1 and floor in [0, 1], not {num}, {kept} and {floor}")

    def init():
        return History(jnp.zeros((num, kept)), jnp.zeros(num, jnp.int32))

    def draw(memory: History, key, index, total):
        p = _share(memory, floor)
        u = jax.vmap(jax.random.uniform)(rng.per_example(key, index))
        cumulative = jnp.cumsum(p)
        place = jnp.searchsorted(cumulative, u * cumulative[-1], side="right")
        place = jnp.minimum(place, num - 1)
        return (place + 1) / num, 1 / (num * p[place])

    def update(memory: History, t, losses):
        place = jnp.rint(t * num).astype(jnp.int32) - 1
        same = place[:, None] == place[None, :]
        before = jnp.sum(jnp.tril(same, -1), axis=1)  # examples of the same time earlier in the batch
        after = jnp.sum(same, axis=1) - 1 - before
        slot = (memory.count[place] + before) % kept
        # Of more than `kept` the last remain: each slot is written once, so the order of writing does not matter.
        row = jnp.where(after < kept, place, num)
        return History(
            memory.losses.at[row, slot].set(losses, mode="drop"), memory.count.at[place].add(1, mode="drop")
        )

    return Times(init, draw, update)


def _share(memory: History, floor: float) -> Any:
    num, kept = memory.losses.shape
    size = jnp.sqrt(jnp.mean(memory.losses**2, axis=1))
    known = jnp.all(memory.count >= kept) & (size.sum() > 0)
    learned = (1 - floor) * size / jnp.where(known, size.sum(), 1.0) + floor / num
    return jnp.where(known, learned, 1 / num)
