"""Total correlation: how far the numbers of a code are from independent (beta-TCVAE, Chen et al. 2018, equation 2).

The mean rate is the sum of I(x; z), of the total correlation KL(q(z) || prod_j q(z_j)), and of sum_j KL(q(z_j) ||
p(z_j)), where q(z) is the mean of q(z | x) over the N training examples. It is estimated at a code z with
*references*, M training examples that are held, and the code's own example, which the mean contains for certain:

    q(z) = 1/N q(z | x) + (N - 1)/(N M) sum_m q(z | x_m).

The published estimators take the rest of the batch for references. Their values depend on the batch and on how it is
split over devices; this one's do not.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.autoencoding.codes import total
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Encode, Penalty

REFERENCES, EXAMPLES = "references", "examples"  # names in `context.held`


class Decomposition(NamedTuple):
    """log q(z | x) - log p(z) at a draw of z, in three parts, nats [B], whose means are the three of the mean rate.

    Attributes:
      information: log q(z | x) - log q(z).
      correlation: log q(z) - sum_j log q(z_j).
      dimensions: sum_j log q(z_j) - log p(z_j).
    """

    information: jax.Array
    correlation: jax.Array
    dimensions: jax.Array


def hold(references: np.ndarray, examples: int) -> dict[str, np.ndarray]:
    """What a run holds for `weighted`: M of its N = `examples` training examples, [M, ...].

    Raises:
      InputError: there are fewer than two examples, or no references.
    """
    if examples < 2 or not len(references):
        raise InputError(
            f"{len(references)} of {examples} examples stand for the law of the codes; give 1 of 2 or more"
        )
    return {REFERENCES: np.asarray(references), EXAMPLES: np.asarray(examples, np.int32)}


def decompose(
    z: jax.Array, own: Gaussian, others: Gaussian, same: jax.Array, examples: jax.Array | int
) -> Decomposition:
    """The parts of the rate at codes z, for p(z) = N(0, I).

    The logarithm of an estimate is too small on average, by half of its relative variance: of few references the
    information comes out too large. With all N examples as references q(z) is exact.

    Args:
      z: [B, k], each drawn from the law of its own example.
      own: q(z | x) of these examples, arrays [B, k].
      others: q(z | x_m) of the references, arrays [M, k].
      same: bool [B, M], whether the reference is the example itself, which then counts once, as its own.
      examples: N, the number of training examples, at least 2.
    """
    examples = jnp.asarray(examples, z.dtype)
    counted = jnp.maximum(jnp.sum(~same, axis=1, keepdims=True), 1)
    log_share = jnp.where(same, -jnp.inf, jnp.log1p(-1 / examples) - jnp.log(counted))
    log_share = jnp.pad(log_share, ((0, 0), (1, 0)), constant_values=-jnp.log(examples))
    own_log_q = own.log_prob(z)
    log_q = jnp.concatenate([own_log_q[:, None], others.log_prob(z[:, None])], axis=1)  # [B, 1 + M, k]
    joint = jax.nn.logsumexp(log_q.sum(axis=2) + log_share, axis=1)
    each = jax.nn.logsumexp(log_q + log_share[..., None], axis=1).sum(axis=1)
    prior = total(Gaussian(jnp.zeros((), z.dtype), jnp.ones((), z.dtype)).log_prob(z))
    return Decomposition(total(own_log_q) - joint, joint - each, each - prior)


def weighted(beta: float, encode: Encode, references: int) -> Penalty:
    """(beta - 1) times the total correlation: with the rate, whose weight stays 1, the loss of beta-TCVAE.

    (Chen et al. 2018, equation 4, with alpha = gamma = 1.) The rate itself is exact; only this part is estimated.
    Codes are [B, k]. Of the training examples that `context.held` has (`hold`) each update encodes the next few, with
    the present parameters.

    Args:
      beta: at least 0; 1 is the evidence lower bound.
      encode: `(params, x) -> q(z | x)`, normal.
      references: of an update, at least 1; all that are held, where they are fewer.

    Raises:
      InputError: beta is negative, or there are no references.
    """
    if not beta >= 0:
        raise InputError(f"a total correlation weighed by {beta}; give a number >= 0")
    if references < 1:
        raise InputError(f"{references} references for the law of the codes; give at least 1")

    def penalty(params, keys, x, code, context):
        held = context.held[REFERENCES]
        size = len(held)
        few = min(references, size)
        # In turn: over the updates all count alike.
        shown = held[((context.step % size) * few + jnp.arange(few)) % size]
        same = jnp.all((x[:, None] == shown).reshape(len(x), few, -1), axis=2)
        parts = decompose(code.z, encode(params, x), encode(params, shown), same, context.held[EXAMPLES])
        return (beta - 1) * parts.correlation

    return penalty
