"""Codebooks that follow the moving averages of what their codes stand for (van den Oord et al. 2017, appendix A.1).

A codebook is a part of the parameters, {"counts": N [K], "sums": m [K, d], "offers": [K], "offered": [K, d]}. N and m
are moving averages of how often a batch takes each code and of the sum of the vectors that take it; the codes are
e = m / N. The last two are always 0; their gradients are vectors that a batch offers to dead codes (`by_average`).

All four come out of the loss as gradients (`statistics`). So devices add up counts and sums, and no codebook is
averaged.
"""

from typing import Protocol

import jax
import jax.numpy as jnp

from diffusion_jax.autoencoding.statistics import observe
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Teach, Tree

HIGHEST = jax.lax.Precision.HIGHEST


class OfCodebook(Protocol):
    """`params -> {"counts", "sums", "offers", "offered"}`: where a codebook lies."""

    def __call__(self, params: Tree, /) -> dict[str, jax.Array]: ...


def start(codes: jax.Array) -> dict[str, jax.Array]:
    """The codebook that begins with `codes` [K, d], each of them taken once: a code not taken stays where it is.

    Raises:
      InputError: there is no code.
    """
    if codes.ndim != 2 or not codes.size:
        raise InputError(f"a codebook of codes {list(codes.shape)}; give at least one, [K, d]")
    counts = jnp.ones(len(codes), codes.dtype)
    return {"counts": counts, "sums": codes, "offers": jnp.zeros_like(counts), "offered": jnp.zeros_like(codes)}


def codes(codebook: dict[str, jax.Array], epsilon: float = 1e-5) -> jax.Array:
    """e = m / N~ [K, d], N~ = (N + epsilon) / (sum N + K epsilon) sum N: Laplace's smoothing keeps N~ from 0."""
    counts, sums = codebook["counts"], codebook["sums"]
    num = counts.sum()
    smooth = (counts + epsilon) / (num + len(counts) * epsilon) * num
    return sums / smooth[:, None]


def by_average(codebook: OfCodebook, batch: int) -> Teach:
    """0, whose gradients are a batch's counts and sums, and what it offers; `moved` makes of them the next codebook.

    Each vector is offered to one code at random, of its example's key, with a probability that gives each code about
    one offer in the whole batch. So a code that nothing takes any more can be put where there are vectors, and which
    vectors these are depends neither on devices nor on the parts of a batch.

    Args:
      codebook: where it lies among the parameters. The loss may weigh this cost by nothing but 1.
      batch: examples of an update, over all devices.

    Raises:
      InputError: `batch` is below 1.
    """
    if batch < 1:
        raise InputError(f"a codebook that follows batches of {batch} examples; give at least 1")

    def teach(params, keys, z, indices, codes):
        size, dim = codes.shape
        z, indices = z.reshape(len(z), -1, dim), indices.reshape(len(z), -1)
        positions = indices.shape[1]
        which, whether = rng.split(keys, 2)
        number = jax.vmap(lambda key: jax.random.randint(key, (positions,), 0, size))(which)
        chance = min(1.0, size / (positions * batch))
        offered = jax.vmap(lambda key: jax.random.bernoulli(key, chance, (positions,)))(whether)
        at = codebook(params)
        taken = _tallied(z, indices, size)
        given = _tallied(z, jnp.where(offered, number, size), size)  # nothing is at `size`
        seen = zip(("counts", "sums", "offers", "offered"), (*taken, *given), strict=True)
        return sum(observe(at[name], value) for name, value in seen)

    return teach


def _tallied(z, indices, size):
    """How often each code is taken [B, K], and the sum of the vectors that take it [B, K, d]."""
    one = jax.nn.one_hot(indices, size, dtype=z.dtype)
    return one.sum(axis=1), jnp.einsum("bpk,bpd->bkd", one, z, precision=HIGHEST)


def moved(
    codebook: dict[str, jax.Array], seen: dict[str, jax.Array], decay: float, least: float
) -> dict[str, jax.Array]:
    """The codebook after a batch (van den Oord et al. 2017, equations 6 to 8), and dead codes revived.

    A code is dead that fewer than `least` vectors of a batch take, as its moving average says. It begins anew at the
    mean of the vectors that it was offered, taken once. N and m are both set, or the old ones would move it back.

    Args:
      codebook: as in the parameters.
      seen: the same arrays of the whole batch: sums over all its examples.
      decay: of the moving averages, in [0, 1).
      least: below 1; 0 revives nothing.
    """
    counts, sums = (decay * codebook[name] + (1 - decay) * seen[name] for name in ("counts", "sums"))
    offered = seen["offers"] > 0.5
    dead = (counts < least) & offered
    fresh = seen["offered"] / jnp.where(offered, seen["offers"], 1.0)[:, None]
    return codebook | {
        "counts": jnp.where(dead, jnp.ones_like(counts), counts),
        "sums": jnp.where(dead[:, None], fresh, sums),
    }
