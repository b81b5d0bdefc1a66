"""Tokens: each is forgotten at random and drawn again, from pi or by a matrix (D3PM, Austin et al. 2021).

Data are int32 tokens in 0, ..., K - 1, independent given x0 on the way forward. With Q_t the matrix of q(x_t | x0),
rows x0 and columns x_t, and Q_{t|s} that of q(x_t | x_s), an estimate p of x0 gives, by Bayes,

    p(x_s = j | x_t = i) = Q_{t|s}[j, i] sum_k w_k Q_s[k, j],       w_k = p_k / Q_t[k, i],   0 / 0 := 0,

which is the mean of D3PM's equation 3 under the estimate. Discrete data has no mean: sample it with
`samplers.ancestral(process, end=draw)`.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from numpy.typing import ArrayLike

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand, namespace
from diffusion_jax.core.distributions import Categorical, safe_log
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import OfTime, Time
from diffusion_jax.diffusion.processes.core import Process, check_interval

# ---- How much is kept: alpha(t) falls from 1 to 0, for NumPy and JAX times like a `Schedule`'s functions.


def linear_alpha(t: Time) -> Any:
    """1 - t: MDLM's log-linear schedule, D3PM's 1 / (T - t + 1) for masks."""
    return 1 - namespace(t).asarray(t, float)


def cosine_alpha(t: Time) -> Any:
    """1 - cos(pi / 2 (1 - t)): MaskGIT's cosine share of masks; slow to reveal at first."""
    return 1 - namespace(t).sin(np.pi / 2 * namespace(t).asarray(t, float))


def shares(alpha: OfTime, t: Time, s: Time) -> tuple[Any, Any]:
    """(alpha(t), alpha(s)), the shares kept at both ends of a step.

    `InputError` unless 0 <= s < t <= 1, alpha does not rise, and alpha(s) > 0. Traced values pass.
    """
    check_interval(t, s)
    alpha_t, alpha_s = alpha(t), alpha(s)
    if all(namespace(a) is np for a in (t, s, alpha_t, alpha_s)):
        now, before, at, to = np.broadcast_arrays(alpha_t, alpha_s, t, s)
        bad = ~((before > 0) & (now <= before))
        if bad.any():
            raise InputError(
                "alpha must fall, and to 0 at t = 1 only, "
                f"not be {before[bad][0]:g} at {to[bad][0]:g} and {now[bad][0]:g} at {at[bad][0]:g}"
            )
    return alpha_t, alpha_s


# ---- Tokens drawn from pi, whatever they were: O(K).


class Mixture(NamedTuple):
    """The matrix keep I + redraw 1 pi^T; scalars of one step, or arrays over a grid or a batch."""

    keep: jax.Array
    redraw: jax.Array


class Noise(NamedTuple):
    """What x_t = where(level < alpha(t), x0, token) is made of, int32 and float arrays of x0's shape.

    The same noise corrupts any x0 at any time: tokens are forgotten one after another, and edits of x0 can share it.
    """

    level: jax.Array
    token: jax.Array


def categorical(alpha: OfTime, pi: ArrayLike) -> Process:
    """A token is kept with probability alpha(t), else drawn from `pi`: Q_t = alpha_t I + (1 - alpha_t) 1 pi^T.

    Multinomial diffusion for uniform pi (Hoogeboom et al. 2021), D3PM's absorbing state for a one-hot pi. The bridge
    is (r d_ij + (1 - r) pi_i) (alpha_s w_j + (1 - alpha_s) pi_j sum_k w_k), r = alpha_t / alpha_s, in O(K), computed
    with logarithms: neither s = 0, nor alpha_t = 0, nor certain estimates make NaNs, in values or gradients. A token
    that pi cannot draw was there all along, and stays.

    Args:
      alpha: `t -> share kept`, decreasing, alpha(0) = 1, positive for t < 1 (else `bridge` raises `InputError`, if t
        is not traced); `linear_alpha`, `cosine_alpha`, or any.
      pi: the stationary law, [K], nonnegative, of sum 1; else `InputError`. It is the prior at every t: the marginal
        where alpha(t) = 0, and elsewhere that of tokens which follow pi themselves. Masks then hide everything.

    `corrupt` takes int tokens of any shape and returns int32 tokens and their `Noise`; `bridge` takes a
    `Categorical` [B, ..., K] (`InputError` for another vocabulary) and tokens [B, ...], and returns a `Categorical`.
    """
    pi = _law(pi)
    vocab = len(pi)
    cumulative = np.cumsum(pi) / np.sum(pi)

    def draw(key, shape):
        u = rng.flat(jax.random.uniform, key, shape)
        return jnp.searchsorted(jnp.asarray(cumulative, u.dtype), u, side="right").astype(jnp.int32)

    def corrupt(key, x0, t):
        level_key, token_key = jax.random.split(key)
        noise = Noise(rng.flat(jax.random.uniform, level_key, x0.shape), draw(token_key, x0.shape))
        return jnp.where(noise.level < alpha(t), x0, noise.token).astype(jnp.int32), noise

    def column(mixture: Mixture, x):
        """The probability of `x` [...] from each origin, [..., K], up to a factor that origins share."""
        hot = jax.nn.one_hot(x, vocab)
        drawn = jnp.asarray(pi, hot.dtype)[x][..., None]
        return jnp.where(drawn > 0, expand(mixture.keep, hot) * hot + expand(mixture.redraw, hot) * drawn, hot)

    def correct(to_s: Mixture, s_to_t: Mixture, to_t: Mixture, estimate: Categorical, x_t) -> Categorical:
        origin = log_origin(estimate, x_t, column(to_t, x_t))
        kept = safe_log(expand(to_s.keep, origin)) + origin
        drawn = safe_log(expand(to_s.redraw, origin) * jnp.asarray(pi, origin.dtype))
        return Categorical(safe_log(column(s_to_t, x_t)) + log_add(kept, drawn))

    def bridge(t, s):
        alpha_t, alpha_s = shares(alpha, t, s)
        return Partial(
            correct,
            Mixture(alpha_s, 1 - alpha_s),
            Mixture(alpha_t / alpha_s, (alpha_s - alpha_t) / alpha_s),
            Mixture(alpha_t, 1 - alpha_t),
        )

    def prior(key, shape, t=1.0):
        del t  # pi is stationary
        return draw(key, shape)

    return Process(corrupt, bridge, prior)


def masked(alpha: OfTime, vocab: int, mask: int) -> Process:
    """Forgotten tokens become `mask`, one of the `vocab` tokens (D3PM's absorbing state; MDLM, Sahoo et al. 2024)."""
    if not 0 <= mask < vocab:
        raise InputError(f"the mask is one of the tokens 0, ..., {vocab - 1}, not {mask}")
    return categorical(alpha, np.eye(1, vocab, mask)[0])


def uniform(alpha: OfTime, vocab: int) -> Process:
    """Forgotten tokens become any of the `vocab` tokens (multinomial diffusion, Hoogeboom et al. 2021)."""
    return categorical(alpha, np.full(vocab, 1 / vocab))


# ---- Any matrices: O(K^2).


def general(transitions: ArrayLike) -> Process:
    """A table of transition matrices: x_{i / T} is drawn from row x_{(i - 1) / T} of Q_i (D3PM, section 3).

    Times are looked up, as in `schedules.from_betas`: NumPy times must be multiples of 1 / T (`InputError`), traced
    times are rounded. Products of matrices are taken in float64, except between traced times. The prior is
    the mean row of Q_1 ... Q_T, at every t: all its rows should be the stationary law.

    Args:
      transitions: [T, K, K], rows x_s, columns x_t; `InputError` unless every row is a law, and for a matrix before
        the last that is singular because two of its rows are alike: the tokens it merges are one for all later
        times. (Rank alone would not do: the smooth matrices of D3PM's appendix A.2.3 lack rank in float64.)

    `corrupt` and `bridge` as of `categorical`; the noise is the uniform number whose quantile x_t is. Tokens that
    the matrices cannot reach have no posterior: their kernel is NaN.
    """
    steps = _stochastic(transitions)
    num, vocab, _ = steps.shape
    for i, step in enumerate(steps[:-1], 1):
        if len(np.unique(step, axis=0)) < vocab:
            raise InputError(
                f"transition {i} of {num} is singular: two rows are alike, and what it merges cannot be told apart "
                "again; only the last may forget, mix in some of the identity"
            )
    products = [np.eye(vocab)]
    for step in steps:
        products.append(products[-1] @ step)
    products = np.stack(products)  # type: ignore[assignment]  # the list is done with

    def index(t):
        if isinstance(t, jax.Array):
            return jnp.rint(t * num).astype(jnp.int32)
        position = np.asarray(t, np.float64) * num
        if np.any(np.abs(position - np.rint(position)) > 1e-6 * num):
            raise InputError(f"t = {t} is not on the table of transitions: use i / {num}, i = 0, ..., {num}")
        return np.rint(position).astype(int)

    def between(first, last):
        """Q_{first + 1} ... Q_{last}, [..., K, K]."""
        if isinstance(first, jax.Array) or isinstance(last, jax.Array):
            first, last = jnp.broadcast_arrays(first, last)
            table = jnp.asarray(steps)

            def product(i, j):
                return jax.lax.fori_loop(
                    i, j, lambda n, q: jnp.matmul(q, table[n], precision="highest"), jnp.eye(vocab)
                )

            flat = jax.vmap(product)(first.ravel(), last.ravel())
            return flat.reshape(*first.shape, vocab, vocab)
        first, last = np.broadcast_arrays(first, last)
        chains = [[np.eye(vocab), *steps[i:j]] for i, j in zip(first.ravel(), last.ravel(), strict=True)]
        return np.stack([_chain(chain) for chain in chains]).reshape(*first.shape, vocab, vocab)

    def corrupt(key, x0, t):
        u = rng.flat(jax.random.uniform, key, x0.shape)
        cumulative = jnp.cumsum(jnp.asarray(_table(products, index(t)), u.dtype)[x0], axis=-1)
        return jnp.sum(cumulative <= u[..., None] * cumulative[..., -1:], axis=-1).astype(jnp.int32), u

    def prior(key, shape, t=1.0):
        del t
        return Categorical(jnp.broadcast_to(safe_log(products[-1].mean(0)), (*shape, vocab))).sample(key)

    def column(matrix, x):
        hot = jax.nn.one_hot(x, vocab)
        return _each(hot, jnp.swapaxes(jnp.asarray(matrix, hot.dtype), -1, -2))

    def correct(to_s, s_to_t, to_t, estimate: Categorical, x_t) -> Categorical:
        origin = log_origin(estimate, x_t, column(to_t, x_t))
        forward = _each(jnp.exp(origin), jnp.asarray(to_s, origin.dtype))
        return Categorical(safe_log(column(s_to_t, x_t)) + safe_log(forward))

    def bridge(t, s):
        check_interval(t, s)
        i, j = index(s), index(t)
        return Partial(correct, _table(products, i), between(i, j), _table(products, j))

    return Process(corrupt, bridge, prior)


def log_origin(estimate: Categorical, x_t: jax.Array, likelihood: jax.Array) -> jax.Array:
    """log w of the module's formula, normalised over x0: [..., K], -inf where x_t cannot come from."""
    if estimate.logits.shape != likelihood.shape:
        raise InputError(
            f"tokens {x_t.shape} of a vocabulary of {likelihood.shape[-1]} take logits {likelihood.shape}, "
            f"not {estimate.logits.shape}"
        )
    possible = likelihood > 0
    log_likelihood = jnp.log(jnp.where(possible, likelihood, 1.0))
    return jax.nn.log_softmax(jnp.where(possible, estimate.logits - log_likelihood, -jnp.inf))


def log_add(a: jax.Array, b: jax.Array) -> jax.Array:
    """log(e^a + e^b), -inf where both are, with finite gradients."""
    top = jax.lax.stop_gradient(jnp.maximum(a, b))
    top = jnp.where(jnp.isfinite(top), top, 0.0)
    return safe_log(jnp.exp(a - top) + jnp.exp(b - top)) + top


def _each(rows, matrix):
    """`rows` [B, ..., K] times `matrix`, [K, K] or one for each example [B, K, K]."""
    flat = rows.reshape(rows.shape[0], -1, rows.shape[-1])
    return jnp.matmul(flat, matrix, precision="highest").reshape(rows.shape)


def _table(table: np.ndarray, index):
    return namespace(index).asarray(table)[index]


def _chain(matrices) -> np.ndarray:
    product = matrices[0]
    for matrix in matrices[1:]:
        product = product @ matrix
    return product


def _law(pi: ArrayLike) -> np.ndarray:
    pi = np.asarray(pi, np.float64)
    if pi.ndim != 1 or not (pi >= 0).all() or abs(pi.sum() - 1) > 1e-6:
        raise InputError(f"pi must be a vector of nonnegative entries of sum 1, not {pi}")
    return pi


def _stochastic(transitions: ArrayLike) -> np.ndarray:
    steps = np.asarray(transitions, np.float64)
    if steps.ndim != 3 or steps.shape[1] != steps.shape[2] or not steps.size:
        raise InputError(f"transitions are matrices [T, K, K], not {steps.shape}")
    bad = ~((steps >= 0).all(-1) & (np.abs(steps.sum(-1) - 1) < 1e-6))
    if bad.any():
        i, row = np.argwhere(bad)[0]
        raise InputError(f"row {row} of transition {i + 1} is not a law: {steps[i, row]}")
    return steps
