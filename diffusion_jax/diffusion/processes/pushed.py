"""Kernels that are pushed: a classifier's guidance of an ancestral chain."""

from typing import Any

from jax.tree_util import Partial

from diffusion_jax.core.distributions import along
from diffusion_jax.core.protocols import Gradient
from diffusion_jax.diffusion.processes.core import Process


def pushed(process: Process, gradient: Gradient, scale: Any = 1.0) -> Process:
    """`process`, its kernels N(mean, var) moved to mean + scale var gradient(x_t, t).

    Classifier guidance of DDPM (Dhariwal & Nichol 2021, algorithm 1): `gradient` is `guidance.gradient(log_prob)`,
    of log p(y | x_t), and var the kernel's own, learned or not. As in the paper's code it is taken at x_t, where
    their derivation has the kernel's mean. Exact as the steps become short; a kernel without variance (DDIM with
    eta = 0) is not moved: for that, `guidance.classifier`.

    Args:
      process: of arrays, with normal kernels.
      gradient: `(x_t [B, ...], t) -> [B, ...]`.
      scale: a number, [B], or an array of as many axes as x that broadcasts to it; `InputError` in the bridge
        otherwise.
    """

    def correct(bridge, t, estimate, x_t):
        kernel = bridge(estimate, x_t)
        push = along(scale, x_t.shape) * kernel.var * gradient(x_t, t)
        return kernel._replace(mean=(kernel.mean + push).astype(kernel.mean.dtype))

    def bridge(t, s):
        return Partial(correct, process.bridge(t, s), t)

    return process._replace(bridge=bridge)
