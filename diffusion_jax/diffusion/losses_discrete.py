"""Losses for tokens: `(keys [B], params, x0 int [B, ...], context) -> (loss per example [B], info)`, in nats a token.

The bounds are of -log p(x0): D3PM's in a number of steps, MDLM's and SEDD's in continuous time, which is the limit.
As in `losses`, each is a criterion of the output, which `losses.joint` may add to others.
"""

import jax
import jax.numpy as jnp
from numpy.typing import ArrayLike

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.distributions import Categorical, certain, mean_over_entries, safe_log
from diffusion_jax.core.protocols import Apply, Criterion, Loss, OfTime, Time
from diffusion_jax.diffusion import losses, parameterizations
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.processes.core import Process

# ---- What SEDD's network says of tokens; for the others see `parameterizations.logits` and `substitution`.


def log_ratios(time: OfTime) -> Parameterization:
    """The network gives log p_t(y) / p_t(x_t), y in place of a token of x_t, for each, [B, ..., K]: for `sedd`.

    SEDD's concrete score (Lou et al. 2024); the entry of y = x_t is not looked at.
    """
    return parameterizations.logits(time)._replace(read=lambda output, x_t, t: output)


def from_log_ratios(alpha: OfTime, pi: ArrayLike, time: OfTime) -> Parameterization:
    """`log_ratios` as an estimate of x0, for samplers and the other losses. For `categorical(alpha, pi)`; t < 1."""
    return parameterizations.logits(time)._replace(
        read=lambda output, x_t, t: estimate_from_ratios(alpha, pi, output, x_t, t)
    )


def to_log_ratios(alpha: OfTime, pi: ArrayLike, parameterization: Parameterization) -> Parameterization:
    """The log ratios of an estimate of x0: a network of `logits` or `substitution` under `sedd`."""

    def read(output, x_t, t):
        return ratios_from_estimate(alpha, pi, parameterization.read(output, x_t, t), x_t, t)

    return parameterization._replace(read=read)


# ---- Ratios of SEDD, and estimates: one is a linear function of the other, given x_t.


def ratios_from_estimate(alpha: OfTime, pi: ArrayLike, estimate: Categorical, x_t: jax.Array, t: Time) -> jax.Array:
    """log p_t(y) / p_t(x_t) of each token's neighbours y, [B, ..., K]; 0 at y = x_t. t in (0, 1).

    The ratio is sum_k p_k q_t(y | k) / q_t(x_t | k) = alpha w_y + (1 - alpha) pi_y sum_k w_k, where
    w_k = p_k / q_t(x_t | k). At a token that pi cannot draw (one revealed from under masks) the estimate
    knows nothing of other data: those ratios are 0, and `sedd` does not ask for them.
    """
    likelihood = _likelihood(alpha, pi, x_t, t)
    possible = likelihood > 0
    log_w = jnp.where(possible, jax.nn.log_softmax(estimate.logits) - safe_log(likelihood), -jnp.inf)
    total = jax.nn.logsumexp(log_w, axis=-1, keepdims=True)
    keep = expand(alpha(t), log_w)
    return safe_log(keep * jnp.exp(log_w - total) + (1 - keep) * jnp.asarray(pi, log_w.dtype)) + total


def estimate_from_ratios(alpha: OfTime, pi: ArrayLike, log_ratio: jax.Array, x_t: jax.Array, t: Time) -> Categorical:
    """The inverse of `ratios_from_estimate`; t in (0, 1). Ratios of no estimate at all are cut off at p = 0."""
    hot = jax.nn.one_hot(x_t, log_ratio.shape[-1])
    ratio = jnp.where(hot > 0, 1.0, jnp.exp(log_ratio))
    keep, total = expand(alpha(t), ratio), ratio.sum(-1, keepdims=True)
    w = (ratio - (1 - keep) * jnp.asarray(pi, ratio.dtype) * total) / keep
    return Categorical(safe_log(_likelihood(alpha, pi, x_t, t) * w))


def _likelihood(alpha: OfTime, pi: ArrayLike, x_t, t):
    """q_t(x_t | x0) for each x0, [B, ..., K]."""
    pi = jnp.asarray(pi)
    hot = jax.nn.one_hot(x_t, len(pi))
    keep = expand(alpha(t), hot)
    return keep * hot + (1 - keep) * pi[x_t][..., None]


# ---- The criteria, `(output, x0, noise, x_t, t) -> [B]`, and their losses; arguments as of `losses.of_criterion`.


def surprise(parameterization: Parameterization) -> Criterion:
    """The criterion by -log p(x0 | x_t), whatever the estimate's law: `parameterizations.logits`,
    `parameterizations.substitution`, `from_log_ratios`."""

    def criterion(output, x0, noise, x_t, t):
        return -mean_over_entries(parameterization.read(output, x_t, t).log_prob(x0))

    return criterion


def cross_entropy(apply: Apply, parameterization: Parameterization, process: Process) -> Loss:
    """-log p(x0 | x_t): the auxiliary loss of D3PM's equation 5."""
    return losses.of_criterion(surprise(parameterization), apply, parameterization, process)


def teacher_forced(apply: Apply, parameterization: Parameterization, process: Process) -> Loss:
    """-log p(x0) of a network that says of each token what it reads off those before it, all in one call.

    Exact, in nats a token. Nothing is hidden and `Context.t` is not looked at (`time_sampling.none`): the order of
    the network hides the rest. For `parameterizations.logits` and `processes.raster`.
    """
    del process
    criterion = surprise(parameterization)

    def loss(keys, params, x0, context, *cond):
        t = jnp.zeros(len(x0))
        output = apply(params, *parameterization.scale(x0, t), *cond, dropout_keys=keys)
        return criterion(output, x0, None, x0, t), {}

    return loss


def mdlm(apply: Apply, parameterization: Parameterization, process: Process, alpha: OfTime) -> Loss:
    """The continuous-time bound of masked diffusion (Sahoo et al. 2024, equation 10).

    -alpha'(t) / (1 - alpha(t)) times the cross-entropy of the masked tokens. `parameterization` must keep revealed
    tokens, as `substitution` does: they then cost nothing. A bound for t uniform over (0, 1], and the same bound
    for every alpha that falls from 1 to 0.
    """
    return losses.weighted(cross_entropy(apply, parameterization, process), masking_rate(alpha))


def masking_rate(alpha: OfTime) -> OfTime:
    """The weight -alpha'(t) / (1 - alpha(t)) of masked diffusion's bound; t > 0."""
    return lambda t: -_slope(alpha, t) / (1 - alpha(t))


def d3pm(apply: Apply, parameterization: Parameterization, process: Process, num: int) -> Loss:
    """The variational bound of a chain of `num` steps (Austin et al. 2021, equation 1).

    num times KL(q(x_s | x_t, x0) || p(x_s | x_t)), t = i / num and s = (i - 1) / num. At s = 0 it is
    -log p(x0 | x_t), so nothing is left out but the prior's term, 0 where alpha(1) = 0. A bound for t uniform over
    1 / num, ..., 1 (`time_sampling.table`).
    """

    def criterion(output, x0, noise, x_t, t):
        step = jnp.rint(t * num)
        bridge = process.bridge(step / num, (step - 1) / num)
        estimate = parameterization.read(output, x_t, t)
        truth = certain(x0, estimate.logits.shape[-1])
        return num * mean_over_entries(bridge(truth, x_t).kl(bridge(estimate, x_t)))

    return losses.of_criterion(criterion, apply, parameterization, process)


def sedd(apply: Apply, parameterization: Parameterization, process: Process, alpha: OfTime, pi: ArrayLike) -> Loss:
    """The diffusion-weighted denoising score entropy (Lou et al. 2024), of `categorical(alpha, pi)`.

    rate pi_x sum_{y != x} s_y - r_y log s_y + r_y (log r_y - 1) at x = x_t, with s the network's ratios and r those
    of the true x0; rate = -alpha'(t) / alpha(t), at which tokens are drawn again. A bound for t uniform over (0, 1).
    `parameterization` reads log ratios: `log_ratios`, or `to_log_ratios` of another.
    """

    def criterion(output, x0, noise, x_t, t):
        log_s = parameterization.read(output, x_t, t)
        vocab = log_s.shape[-1]
        log_r = ratios_from_estimate(alpha, pi, certain(x0, vocab), x_t, t)
        other = jax.nn.one_hot(x_t, vocab) == 0
        rate = expand(-_slope(alpha, t) / alpha(t), x_t) * jnp.asarray(pi, log_s.dtype)[x_t]
        return mean_over_entries(rate * jnp.sum(jnp.where(other, score_entropy(log_s, log_r), 0.0), axis=-1))

    return losses.of_criterion(criterion, apply, parameterization, process)


def score_entropy(log_s: jax.Array, log_r: jax.Array) -> jax.Array:
    """s - r log s + r (log r - 1) of each entry, >= 0, and 0 where s = r (Lou et al. 2024)."""
    there = jnp.isfinite(log_r)
    gap = jnp.where(there, log_r, 0.0) - jnp.where(there, log_s, 0.0)
    return jnp.exp(log_s) + jnp.where(there, jnp.exp(log_r) * (gap - 1), 0.0)


def _slope(alpha: OfTime, t):
    """alpha'(t) for times [B]."""
    return jax.vmap(jax.grad(alpha))(t)
