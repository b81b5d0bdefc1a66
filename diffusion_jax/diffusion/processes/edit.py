"""Edits of tokens that share their noise: what is redrawn at t is redrawn at s with the same token.

Forward this is `processes.categorical`: x_t = x0 where a token's level is below alpha(t), else the noise's token z.
Backward the noise is kept, x_s = F_s(x0_hat, F_t^-1(x0_hat, x_t)). Where x_t is not x0 it is z, whose level lies
above alpha(t), and hence above alpha(s) with probability gamma_s / gamma_t, gamma = 1 - alpha. So

    p(x_s | x_t, x0) = (gamma_s / gamma_t) [x_s = x_t] + (1 - gamma_s / gamma_t) [x_s = x0],

the least random of DDIM's processes for discrete data (Song et al. 2021, appendix A).
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffusion_jax.core.arrays import expand, namespace
from diffusion_jax.core.distributions import Categorical, safe_log
from diffusion_jax.core.protocols import OfTime
from diffusion_jax.diffusion.processes.categorical import categorical, log_add, log_origin, shares
from diffusion_jax.diffusion.processes.core import Process


def edit(alpha: OfTime, pi: np.ndarray) -> Process:
    """`categorical(alpha, pi)`, undone with shared noise: x_s = x_t with probability gamma_s / gamma_t, else x0_hat.

    A token is set from the estimate or stays; none is redrawn on the way back, so the noise of the prior is all there
    is but for the estimate's draws. Unlike `categorical`'s bridge, this one does not look at what pi cannot draw: an
    estimate that doubts a revealed token edits it. For masks and estimates that keep revealed tokens the two are one.

    Arguments, `corrupt` and `prior` as of `categorical`; `bridge` takes and returns a `Categorical` [B, ..., K], the
    estimate p(x0 | x_t) (`InputError` for another vocabulary). At s = 0 the kernel is the estimate.
    """
    process = categorical(alpha, pi)
    vocab = len(pi)

    def correct(stay, estimate: Categorical, x_t) -> Categorical:
        hot = jax.nn.one_hot(x_t, vocab)
        stay = expand(stay, hot)
        # Any origin is possible: the estimate is only checked and normalised.
        x0 = safe_log(1 - stay) + log_origin(estimate, x_t, jnp.ones_like(hot))
        return Categorical(log_add(safe_log(stay * hot), x0))

    def bridge(t, s):
        alpha_t, alpha_s = shares(alpha, t, s)
        # Where nothing is forgotten yet x_t is x0, and the estimate must know it.
        forgotten = namespace(alpha_t).maximum(1 - alpha_t, np.finfo(np.float32).tiny)
        return Partial(correct, (1 - alpha_s) / forgotten)

    return process._replace(bridge=bridge)
