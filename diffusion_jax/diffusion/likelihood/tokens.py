"""Bounds for tokens, in bits a token: of a chain of steps (D3PM, Austin et al. 2021), and in continuous time.

A chain's bound is `chain.Bound`, as for images. For the limit of many steps the losses of `losses_discrete` are
bounds already, given times that cover (0, 1] evenly: `continuous_bound` draws them so for each example.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from diffusion_jax.core import rng
from diffusion_jax.core.distributions import certain, mean_over_entries
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import (
    Apply,
    Denoiser,
    Guide,
    Integrand,
    LikelihoodFn,
    OfTime,
    PriorTerm,
    Transform,
    Tree,
)
from diffusion_jax.diffusion.guidance import conditioned
from diffusion_jax.diffusion.likelihood.chain import Bound, check_chain, check_keys, make_denoiser, walk
from diffusion_jax.diffusion.likelihood.terms import bits
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.processes import Process

# ---- The prior's term, `x0 [B, ...] -> nats of each token`.


def mixture_prior(alpha: OfTime, pi: ArrayLike, t: float = 1.0) -> PriorTerm:
    """KL(q(x_t | x0) || pi) for `processes.categorical(alpha, pi)` and a chain that starts at `t`.

    0 where alpha(t) = 0. Infinite where something is left of a token that pi cannot draw, as under masks.
    """
    keep, pi = alpha(np.asarray(t)), np.asarray(pi, np.float64)
    return _divergence(keep * np.eye(len(pi)) + (1 - keep) * pi, pi)


def matrix_prior(transitions: ArrayLike) -> PriorTerm:
    """KL(q(x_1 | x0) || p(x_1)) for `processes.general(transitions)`, [T, K, K], and a chain that starts at 1."""
    product = np.eye(np.shape(transitions)[-1])
    for step in np.asarray(transitions, np.float64):
        product = product @ step
    return _divergence(product, product.mean(0))


def _divergence(marginal: np.ndarray, law: np.ndarray) -> PriorTerm:
    """KL(marginal[x0] || law) for rows of `marginal` [K, K]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        table = np.where(marginal > 0, marginal * np.log(marginal / law), 0.0).sum(-1)
    return lambda x0: jnp.asarray(table)[x0]


# ---- A chain.


def discrete_bound(
    denoise: Denoiser, process: Process, times: ArrayLike, prior: PriorTerm, x0: jax.Array, keys: jax.Array
) -> Bound:
    """The bound of a chain of tokens, in bits a token (Austin et al. 2021, equation 1).

    KL(q(x_s | x_t, x0) || p(x_s | x_t)) at every step of the grid, x_t drawn anew. At s = 0 that is -log p(x0 | x_t),
    the decoder. The tokens of a step are drawn independently, which costs O(1 / N).

    Args:
      denoise: `(x_t [B, ...], t) -> Categorical` [B, ..., K].
      process: `processes.masked`, `uniform`, `categorical`, `general`: kernels are `Categorical`.
      times: a grid that falls to 0, [N + 1].
      prior: the prior's term: `mixture_prior`, `matrix_prior`.
      x0: int [B, ...].
      keys: one key an example, [B]; step n uses `fold_in(key, n + 1)`.

    Raises:
      InputError: a grid that does not fall to 0, x0 that is not of integers, or not a key each.
    """
    times, keys = check_chain(times), check_keys(keys, x0)
    if not jnp.issubdtype(x0.dtype, jnp.integer):
        raise InputError(f"tokens are integers 0, ..., K - 1, not {x0.dtype}")

    def cost(bridge, estimate, x_t, last):
        truth = bridge(certain(x0, estimate.logits.shape[-1]), x_t)
        return mean_over_entries(bits(truth.kl(bridge(estimate, x_t))))

    costs = walk(denoise, process, times, x0, keys, process.bridge(times[:-1], times[1:]), cost)
    return Bound(mean_over_entries(bits(prior(x0))), costs[:, :-1], costs[:, -1])


def make_discrete_bound_fn(
    apply: Apply,
    parameterization: Parameterization,
    process: Process,
    times: ArrayLike,
    prior: PriorTerm,
    transforms: Sequence[Transform] = (),
    guide: Guide = conditioned,
) -> LikelihoodFn:
    """`bound_fn(params, keys [B], x0 int [B, ...], *cond) -> Bound`; arguments as of `discrete_bound` and
    `make_bound_fn`."""
    times = check_chain(times)
    made = make_denoiser(apply, parameterization, transforms, guide)

    def bound_fn(params, keys, x0, *cond):
        return discrete_bound(made(params, *cond), process, times, prior, x0, keys)

    return bound_fn


# ---- Continuous time.


class Stratified(NamedTuple):
    """An integral over t in (0, 1], in bits a token.

    Attributes:
      terms: [B, draws], the integrand; its mean over draws is the estimate.
      times: [B, draws], where.
    """

    terms: jax.Array
    times: jax.Array

    @property
    def total(self):
        """[B], the estimate: unbiased but for the ends that are left out."""
        return self.terms.mean(-1)


def continuous_bound(
    loss: Integrand,
    params: Tree,
    x0: Tree,
    keys: jax.Array,
    *cond: Any,
    draws: int = 32,
    first: float = 1e-5,
    last: float = 1.0,
) -> Stratified:
    """A continuous-time bound for each example: the mean of a loss over evenly spread times.

    Times are first + (last - first) (n + u) / draws, n = 0, ..., draws - 1, with a start u of each example's own. The
    parts of (0, 1] outside [first, last] are taken to cost as much as the rest on average.

    Args:
      loss: `(keys [B], params, x0, t [B], *cond) -> nats a token [B]`, a bound for t uniform over (0, 1]:
        `losses.integrand` of `losses_discrete.mdlm` or `sedd` of `evaluating(apply)`.
      params, x0, cond: what the loss takes.
      keys: one key an example, [B].
      draws: times an example, one network evaluation each.
      first: > 0, where masked diffusion's integrand is 0 / 0.
      last: take a little below 1 for `sedd`, whose rate is infinite where alpha = 0.

    Raises:
      InputError: no draws, not 0 < first < last <= 1, or not a key each.
    """
    keys = check_keys(keys, x0)
    if draws < 1 or not 0 < first < last <= 1:
        raise InputError(f"need draws >= 1 and 0 < first < last <= 1, not {draws}, {first} and {last}")
    start = jax.vmap(jax.random.uniform)(rng.each(keys, 0))

    def body(_, number):
        t = first + (last - first) * (number + start) / draws
        return None, (bits(loss(rng.each(keys, number + 1), params, x0, t, *cond)), t)

    _, (terms, times) = jax.lax.scan(body, None, jnp.arange(draws))
    return Stratified(terms.T, times.T)


def evaluating(apply: Apply) -> Apply:
    """A network that is not training, as losses call it: the keys of dropout are left out."""
    return lambda params, *inputs, dropout_keys=None: apply(params, *inputs)
