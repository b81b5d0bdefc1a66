"""Deletion: sequences lose their tokens one by one, and get them back between those that are left.

A token of x0 is still there at time t with probability alpha(t): x_t is a subsequence of x0, and where its tokens
stood is forgotten. With N(y, x) the number of ways in which y is a subsequence of x, and |x| a length,

    q(x_t | x0) = N(x_t, x0) alpha_t^|x_t| (1 - alpha_t)^(|x0| - |x_t|),

and Bayes gives one step back, with rho = (alpha_s - alpha_t) / (1 - alpha_t) the share of lost tokens that return,

    p(x_s | x_t, x0) = N(x_t, x_s) N(x_s, x0) / N(x_t, x0) rho^(|x_s| - |x_t|) (1 - rho)^(|x0| - |x_s|).

It is drawn by picking one of the N(x_t, x0) places of x_t in x0, all alike, and returning each other token of x0
with probability rho. Sequences are int32 [..., L] of tokens >= 0, filled up at the end with `PAD`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import OfTime
from diffusion_jax.diffusion.processes.categorical import shares
from diffusion_jax.diffusion.processes.core import Process

PAD = -1


class Sequence(NamedTuple):
    """A belief that is sure of x0: int32 tokens [..., L].

    Where x_t is not a subsequence of it, a step forgets x_t and keeps each token of x0 with probability rho.
    """

    tokens: jax.Array


class Insertion(NamedTuple):
    """p(x_s | x_t, x0), of one example or with a leading axis of the batch.

    Attributes:
      x0: int32 [..., L].
      x_t: int32 [..., L], a subsequence of x0.
      share: rho in [0, 1], float [...].
    """

    x0: jax.Array
    x_t: jax.Array
    share: jax.Array

    def sample(self, key: jax.Array) -> jax.Array:
        """x_s of one example, int32 [L]; where x_t is no subsequence of x0, its tokens are not kept."""
        place_key, return_key = jax.random.split(key)
        kept = places(place_key, self.x_t, self.x0)
        returned = rng.flat(jax.random.uniform, return_key, self.x0.shape) < self.share
        return compact(self.x0, kept | returned)

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Log probability of the sequence `x` [L] of one example, in nats; -inf where it is impossible."""
        lost, back = length(self.x0) - length(x), length(x) - length(self.x_t)
        ways = log_ways(self.x_t, x) + log_ways(x, self.x0) - log_ways(self.x_t, self.x0)
        odds = _times_log(back, self.share) + _times_log(lost, 1 - self.share)
        return jnp.where((lost >= 0) & (back >= 0), ways + odds, -jnp.inf)


def deletion(alpha: OfTime) -> Process:
    """A token is still there at time t with probability `alpha(t)`, falling from alpha(0) = 1 to alpha(1) = 0.

    `corrupt` takes and gives int32 [L]; its noise is the uniform number of each token of x0, which is there while
    it is below alpha(t). `bridge` takes a `Sequence` [B, L] and x_t [B, L] (`InputError` for another shape); its
    kernel is an `Insertion`. The prior is the empty sequence at every t. Discrete data has no mean: sample it with
    `samplers.ancestral(process, end=draw)`.
    """

    def corrupt(key, x0, t):
        level = rng.flat(jax.random.uniform, key, x0.shape)
        return compact(x0, level < alpha(t)), level

    def bridge(t, s):
        alpha_t, alpha_s = shares(alpha, t, s)
        return Partial(_correct, (alpha_s - alpha_t) / (1 - alpha_t))

    def prior(key, shape, t=1.0):
        del key, t
        return jnp.full(shape, PAD, jnp.int32)

    return Process(corrupt, bridge, prior)


def _correct(share, estimate: Sequence, x_t) -> Insertion:
    if estimate.tokens.shape != x_t.shape:
        raise InputError(f"sequences {x_t.shape} take an estimate of that shape, not {estimate.tokens.shape}")
    return Insertion(estimate.tokens, x_t, jnp.broadcast_to(expand(share, x_t[..., 0]), x_t.shape[:1]))


def length(x: jax.Array) -> jax.Array:
    """The number of tokens of `x` [..., L]."""
    return jnp.sum(x != PAD, axis=-1)


def compact(x: jax.Array, kept: jax.Array) -> jax.Array:
    """The tokens of `x` [L] where `kept` [L], moved together; int32 [L], filled up with `PAD`."""
    kept = kept & (x != PAD)
    order = jnp.argsort(~kept, stable=True)
    return jnp.where(kept, x, PAD)[order].astype(jnp.int32)


def log_ways(y: jax.Array, x: jax.Array) -> jax.Array:
    """log N(y, x), the number of ways in which y [L] is a subsequence of x [L]; -inf for none. O(L^2)."""
    return _prefixes(y, x)[-1, length(y)]


def places(key: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """One of the N(y, x) ways to find y [L] in x [L], all alike: where its tokens are, bool [L]; O(L^2).

    From the end: x's token m is y's token n with probability N(y[:n - 1], x[:m - 1]) / N(y[:n], x[:m]).
    """
    table = _prefixes(y, x)  # of prefixes x[:m], y[:n]

    def step(n, inputs):
        before, here, token, u = inputs
        use = jnp.exp(before[n - 1] - here[n])
        taken = (n > 0) & (token == y[n - 1]) & jnp.isfinite(here[n]) & (u < use)
        return n - taken, taken

    u = rng.flat(jax.random.uniform, key, x.shape)
    return jax.lax.scan(step, length(y), (table[:-1], table[1:], x, u), reverse=True)[1]


def _prefixes(y, x):
    """log N(y[:n], x[:m]) at [m, n]: x's next token joins the ways of y's tokens that it equals; [L + 1, L + 1]."""
    first = jnp.full(y.shape[0] + 1, -jnp.inf).at[0].set(0.0)

    def step(ways, token):
        joined = jnp.where((y == token) & (token != PAD), ways[:-1], -jnp.inf)
        ways = ways.at[1:].set(jnp.logaddexp(ways[1:], joined))
        return ways, ways

    return jnp.concatenate([first[None], jax.lax.scan(step, first, x)[1]])


def _times_log(count, p):
    """count log p, 0 for none."""
    return jnp.where(count > 0, count * jnp.log(p), 0.0)
