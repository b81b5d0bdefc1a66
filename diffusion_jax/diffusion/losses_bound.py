"""The variational bound of a Gaussian chain as a loss: exact, and Improved DDPM's hybrid (Nichol & Dhariwal 2021).

Criteria, as in `losses`. They learn variances, which L_simple does not see.
"""

import jax
import jax.numpy as jnp

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.distributions import Gaussian, mean_over_entries
from diffusion_jax.core.protocols import Criterion
from diffusion_jax.diffusion.likelihood import bits, decoder_term
from diffusion_jax.diffusion.losses import squared_error
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.processes import Process


def bound(parameterization: Parameterization, process: Process, num: int) -> Criterion:
    """The criterion by L_vlb, in bits an entry: `num` times the term of one step (DDPM equation 5).

    The term is KL(q(x_s | x_t, x0) || p(x_s | x_t)) from t = i / num to s = (i - 1) / num, and the decoder's
    -log p(x0 | x_t) at s = 0, for images of 256 levels. Its mean over i is the bound but for the prior's term.

    Args:
      parameterization: reads an estimate whose kernel has a variance above 0: `learned_range`.
      process: `processes.gaussian(schedule)`, whose bridge is the posterior.
      num: length of the chain.
    """

    def criterion(output, x0, noise, x_t, t):
        step = jnp.rint(t * num)
        bridge = process.bridge(step / num, (step - 1) / num)
        kernel = bridge(parameterization.read(output, x_t, t), x_t)
        posterior = bridge(Gaussian(x0), x_t)
        first = expand(step == 1, x0)
        # In the first step the posterior is a point, infinitely far from every kernel: not even its slope is used.
        between = posterior._replace(var=jnp.where(first, 1.0, posterior.var)).kl(kernel)
        return num * mean_over_entries(bits(jnp.where(first, decoder_term(kernel, x0), between)))

    return criterion


def hybrid(
    base: Parameterization,
    parameterization: Parameterization,
    process: Process,
    num: int,
    weight: float = 1e-3,
) -> Criterion:
    """The criterion by L_simple + weight L_vlb, where L_vlb teaches the variance only (equation 16).

    Args:
      base: the parameterisation of the mean.
      parameterization: `learned_range(base, ...)`.
      process, num: as of `bound`.
      weight: the paper's lambda. (With its weight, L_vlb is of the order of L_simple.)
    """
    mean_error, likelihood = squared_error(base), bound(parameterization, process, num)

    def criterion(output, x0, noise, x_t, t):
        mean, v = jnp.split(output, 2, axis=-1)
        frozen = jnp.concatenate([jax.lax.stop_gradient(mean), v], axis=-1)
        return mean_error(mean, x0, noise, x_t, t) + weight * likelihood(frozen, x0, noise, x_t, t)

    return criterion
