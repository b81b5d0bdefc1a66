"""Statistics of a batch that come out of training as gradients.

(p - sg p) . c is 0 and has the gradient c, whatever p is. So what is observed of each example is averaged over the
global batch by the training step that averages gradients: in parts, over devices, sharded and resumed. The part of
the parameters that is p is given an optimiser that makes of these averages what it should be (`training.optimizers`).
"""

import jax

from diffusion_jax.autoencoding.codes import total


def observe(statistic: jax.Array, seen: jax.Array) -> jax.Array:
    """0 for each example, [B], whose gradient by `statistic` [...] is `seen` [B, ...], a constant."""
    nothing = statistic - jax.lax.stop_gradient(statistic)
    return total(nothing[None] * jax.lax.stop_gradient(seen))
