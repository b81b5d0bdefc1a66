"""Self-conditioning as a process: the state is x_t and what was last believed of x0 (Chen, Zhang & Hinton 2023)."""

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.diffusion.processes.core import Process
from diffusion_jax.diffusion.processes.joint import Joint


def self_conditioned(process: Process) -> Process:
    """`process` on {"x": x_t, "estimate": the mean of the estimate before, 0 at first}.

    The estimate is that of the process within. For `parameterizations.self_conditioned` networks, which train with
    `losses.self_conditioned`; end a chain with `samplers.each_its_own(x=on_mean, estimate=on_mean)`.
    """

    def corrupt(key, x0, t):
        x_t, noise = process.corrupt(key, x0, t)
        return _unsaid(x_t), noise

    def bridge(t, s):
        return Partial(_correct, process.bridge(t, s))

    def prior(key, shape, t=1.0):
        return _unsaid(process.prior(key, shape, t))

    return Process(corrupt, bridge, prior)


def _unsaid(x_t) -> dict:
    return {"x": x_t, "estimate": jnp.zeros_like(x_t)}


def _correct(bridge, estimate: Gaussian, state: dict[str, jax.Array]) -> Joint:
    return Joint(x=bridge(estimate, state["x"]), estimate=Gaussian(estimate.mean, jnp.zeros_like(estimate.mean)))
