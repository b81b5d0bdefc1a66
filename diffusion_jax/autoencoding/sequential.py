"""Temporal difference variational autoencoders (TD-VAE, Gregor et al. 2019): states of a sequence, and jumps.

A sequence is x_1, ..., x_T. Its belief b_t summarises x_1, ..., x_t; b_0 knows nothing, so that a sequence can be
drawn from nothing, and its first entry has a bound too. Four laws link beliefs, states and data:

  p_B(z_t | b_t), p_T(z_2 | z_1), p_S(z_1 | z_2, b_1, b_2), p_D(x_t | z_t)

z_1 and z_2 are states at t1 < t2. The bound J needs nothing of what lies between, so training jumps.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from diffusion_jax.autoencoding.codes import total
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import (
    Believe,
    DecodeState,
    Gap,
    Layered,
    LikelihoodFn,
    Loss,
    Move,
    Smooth,
    Summarize,
    Tree,
)


class StateSpace(NamedTuple):
    """The parts of a model of sequences (`core.protocols.sequences`).

    Attributes:
      layers: how many arrays a state is.
      summary: `(params, x [B, T, ...]) -> b [B, T + 1, ...]`.
      belief: `(params, b) -> p_B(z | b)`.
      smoothing: `(params, z2, b1, b2, jump) -> p_S(z1 | z2, b1, b2)`.
      transition: `(params, z1, jump) -> p_T(z2 | z1)`.
      decoder: `(params, z) -> p_D(x | z)`.
    """

    layers: int
    summary: Summarize
    belief: Believe
    smoothing: Smooth
    transition: Move
    decoder: DecodeState


def sample(law: Layered, layers: int, keys: jax.Array) -> tuple[jax.Array, ...]:
    """A state of `law` for each of `keys` [B], the highest layer first."""
    z: tuple[jax.Array, ...] = ()
    for layer in range(layers):
        z = (*z, draw(law(z), rng.each(keys, layer)))
    return z


def log_prob(law: Layered, z: tuple[jax.Array, ...]) -> jax.Array:
    """log p(z) of each example [B], in nats."""
    return jnp.sum(jnp.stack([total(law(z[:n]).log_prob(z[n])) for n in range(len(z))]), axis=0)


def by_sample(p: Layered, q: Layered, z: tuple[jax.Array, ...]) -> jax.Array:
    """log p(z) - log q(z): the KL divergence as one draw of z ~ p estimates it."""
    return log_prob(p, z) - log_prob(q, z)


def in_closed_form(p: Layered, q: Layered, z: tuple[jax.Array, ...]) -> jax.Array:
    """The KL divergences of all layers, each given the layers of z ~ p above it: varies less than `by_sample`."""
    return jnp.sum(jnp.stack([total(p(z[:n]).kl(q(z[:n]))) for n in range(len(z))]), axis=0)


class Terms(NamedTuple):
    """-J of each example by what it pays for, in nats [B].

    Attributes:
      distortion: -log p_D(x2 | z2).
      surprise: log p_B(z2 | b2) - log p_T(z2 | z1), what the transition did not foresee.
      smoothing: KL(p_S(z1 | z2, b1, b2) || p_B(z1 | b1)), or its estimate.
    """

    distortion: jax.Array
    surprise: jax.Array
    smoothing: jax.Array

    @property
    def bound(self) -> jax.Array:
        """-J, at least -log p(x2 | x_1, ..., x_t1) on average."""
        return self.distortion + self.surprise + self.smoothing


def jump_terms(
    parts: StateSpace, params: Tree, keys: jax.Array, x2: jax.Array, b1: Tree, b2: Tree, jump: jax.Array, gap: Gap
) -> Terms:
    """-J by one draw of z2 ~ p_B(z2 | b2) and z1 ~ p_S(z1 | z2, b1, b2) (Gregor et al. 2019, equations 6 to 8).

    Args:
      parts: the model.
      params: its parameters.
      keys: [B].
      x2: [B, ...], the data at t2.
      b1, b2: beliefs at t1 and t2, trees of [B, ...].
      jump: t2 - t1, int [B].
      gap: `by_sample` or `in_closed_form`.
    """
    later, earlier = rng.split(keys, 2)
    belief2 = parts.belief(params, b2)
    z2 = sample(belief2, parts.layers, later)
    smoothed = parts.smoothing(params, z2, b1, b2, jump)
    z1 = sample(smoothed, parts.layers, earlier)
    return Terms(
        -total(parts.decoder(params, z2).log_prob(x2)),
        by_sample(belief2, parts.transition(params, z1, jump), z2),
        gap(smoothed, parts.belief(params, b1), z1),
    )


def loss(parts: StateSpace, shortest: int, longest: int, jumps: int = 1, gap: Gap = in_closed_form) -> Loss:
    """-J, the mean of some jumps in each sequence: `(keys [B], params, x [B, T, ...], context) -> (loss [B], terms)`.

    The length of a jump is uniform in `shortest`, ..., `longest`, and t1 is uniform among those from which it stays
    inside. Both depend on the example's key alone.

    Args:
      parts: the model.
      shortest, longest: lengths of jumps.
      jumps: how many in a sequence; more take little time where the summary takes most of it, and vary less.
      gap: `by_sample` or `in_closed_form`.

    Raises:
      InputError: a number is out of range, or (when called) sequences are shorter than the longest jump.
    """
    if not 1 <= shortest <= longest:
        raise InputError(f"jumps of {shortest} to {longest} entries; give 1 <= shortest <= longest")
    if jumps < 1:
        raise InputError(f"{jumps} jumps in a sequence; give at least 1")

    def of_batch(keys, params, x, context):
        if x.shape[1] < longest:
            raise InputError(
                f"no jump of {longest} fits into a sequence of {x.shape[1]}; "
                f"give sequences of at least {longest} entries, or shorter jumps"
            )
        b = parts.summary(params, x)

        def one(number):
            time_keys, state_keys = rng.split(rng.each(keys, number), 2)
            t1, jump = jax.vmap(lambda key: _times(key, x.shape[1], shortest, longest))(time_keys)
            b1, b2 = _at(b, t1), _at(b, t1 + jump)
            return jump_terms(parts, params, state_keys, _at(x, t1 + jump - 1), b1, b2, jump, gap)

        found = jax.tree.map(lambda term: term.mean(axis=0), jax.vmap(one)(jnp.arange(jumps)))
        return found.bound, found._asdict()

    return of_batch


def _times(key, length, shortest, longest):
    """(t1, jump) of one sequence."""
    first, second = jax.random.split(key)
    jump = jax.random.randint(first, (), shortest, longest + 1)
    return jax.random.randint(second, (), 0, length - jump + 1), jump


def _at(tree, t):
    """Entry t[i] of example i: [B, T, ...] to [B, ...]."""
    return jax.tree.map(lambda x: jax.vmap(lambda row, t: row[t])(x, t), tree)


class StepByStep(NamedTuple):
    """The bound of whole sequences, one entry after another. Of densities all may be negative.

    Attributes:
      total: [B], bits a number of x: at least -log2 p(x) / D on average.
      rate: [B], the share of `Terms.surprise` and `Terms.smoothing` in it.
      distortion: [B], the share of `Terms.distortion`.
    """

    total: jax.Array
    rate: jax.Array
    distortion: jax.Array


def step_by_step(parts: StateSpace) -> LikelihoodFn:
    """The sum of -J over all jumps of 1, which bounds -log p(x): `(params, keys [B], x [B, T, ...]) -> StepByStep`.

    A sum over longer jumps is no likelihood: it does not tell each entry all that came before.
    """

    def bound(params, keys, x):
        length, ones = x.shape[1], jnp.ones(len(x), jnp.int32)
        b = parts.summary(params, x)
        b1, b2 = jax.tree.map(lambda b: b[:, :-1], b), jax.tree.map(lambda b: b[:, 1:], b)

        def at(keys, x2, b1, b2):
            return jump_terms(parts, params, keys, x2, b1, b2, ones, in_closed_form)

        every = jax.vmap(lambda key: jax.random.split(key, length))(keys)
        found = jax.tree.map(lambda term: term.mean(axis=1), jax.vmap(at, 1, 1)(every, x, b1, b2))
        number = 1 / (math.log(2) * math.prod(x.shape[2:]))  # nats an entry of the sequence as bits a number of it
        rate, distortion = (found.surprise + found.smoothing) * number, found.distortion * number
        return StepByStep(rate + distortion, rate, distortion)

    return bound


def rollout(parts: StateSpace, params: Tree, keys: jax.Array, known: jax.Array, num: int) -> Tree:
    """What follows the first entries of sequences, by `num` steps of 1 from a state of their belief.

    Args:
      parts: the model, trained on jumps of 1 among others.
      params: its parameters.
      keys: [B].
      known: the first entries, [B, P, ...]; P may be 0.
      num: how many follow.

    Returns:
      p_D of the entries that follow, given the states drawn: a distribution whose arrays are [B, num, ...].
    """
    b = jax.tree.map(lambda b: b[:, -1], parts.summary(params, known))
    ones = jnp.ones(len(known), jnp.int32)

    def step(z, number):
        z = sample(parts.transition(params, z, ones), parts.layers, rng.each(keys, number))
        return z, parts.decoder(params, z)

    z = sample(parts.belief(params, b), parts.layers, rng.each(keys, 0))
    _, seen = jax.lax.scan(step, z, jnp.arange(1, num + 1))
    return jax.tree.map(lambda x: x.swapaxes(0, 1), seen)
