"""Penalties of sparse and contractive autoencoders: `(params, keys [B], x [B, ...], code, context) -> [B]`.

Each is the share of an example, weighed, so that the mean over examples is the penalty.
"""

import jax
import jax.numpy as jnp

from diffusion_jax.autoencoding.codes import total
from diffusion_jax.autoencoding.statistics import observe
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Encode, OfParams, Penalty

EDGE = 1e-4  # a mean activation is kept this far from 0 and 1, where the divergence is infinite


def sparsity(rho: float, weight: float, moving: OfParams) -> Penalty:
    """`weight` sum_j KL(rho || rho_j), rho_j the mean activation of unit j (sparse autoencoders: Ng 2011, section 2).

    KL is convex in a mean, so a share of the batch has another gradient than the whole. Taken here is its tangent
    at a moving mean: KL(rho || r) + KL'(rho || r) (h_j - r), which is linear in the activation h_j of an example. Its
    mean over a batch is the divergence of the batch's mean where r is that mean, and less elsewhere.

    Args:
      rho: the activation that is wanted, in (0, 1).
      weight: at least 0, against a sum over the entries of x.
      moving: `params -> r [units]`, the moving mean of the codes: a statistic (`statistics`), moved by
        `training.optimizers.moving`. It starts within (0, 1).

    The codes are activations in (0, 1), of sigmoid units.

    Raises:
      InputError: `rho` is not within (0, 1), or the weight is negative.
    """
    if not 0 < rho < 1:
        raise InputError(f"a mean activation of {rho}; give one between 0 and 1, such as 0.05")
    _check(weight)

    def penalty(params, keys, x, code, context):
        statistic = moving(params)
        mean = jnp.clip(jax.lax.stop_gradient(statistic), EDGE, 1 - EDGE)
        value = rho * jnp.log(rho / mean) + (1 - rho) * jnp.log((1 - rho) / (1 - mean))
        slope = (1 - rho) / (1 - mean) - rho / mean
        return weight * total(value + slope * (code.z - mean)) + observe(statistic, code.z)

    return penalty


def sigmoid_contraction(weight: float, kernel: OfParams) -> Penalty:
    """`weight` ||dh/dx||_F^2 of one layer of sigmoids, in closed form (Rifai et al. 2011, equation 6).

    Args:
      weight: at least 0.
      kernel: `params -> W [D, units]`, of h = sigmoid(x W + b), which is the code.

    Raises:
      InputError: the weight is negative.
    """
    _check(weight)

    def penalty(params, keys, x, code, context):
        slopes = code.z * (1 - code.z)
        return weight * jnp.sum(slopes**2 * jnp.sum(kernel(params) ** 2, axis=0), axis=-1)

    return penalty


def forward_contraction(weight: float, encode: Encode) -> Penalty:
    """`weight` ||J||_F^2, J = dh/dx, of any encoder of examples on their own: an estimate by one direction v of x.

    E ||J v||^2 = ||J||_F^2 for independent signs v, with the variance 2 (||G||_F^2 - sum_i G_ii^2), G = J' J
    (Hutchinson 1990). h is the mean of q. Where codes are fewer than inputs `backward_contraction` varies less.
    """
    _check(weight)

    def penalty(params, keys, x, code, context):
        _, moved = jax.jvp(lambda x: encode(params, x).mean, (x,), (_signs(keys, x),))
        return weight * total(moved**2)

    return penalty


def backward_contraction(weight: float, encode: Encode) -> Penalty:
    """`forward_contraction` by one direction u of the code: E ||J' u||^2, with G = J J'."""
    _check(weight)

    def penalty(params, keys, x, code, context):
        h, pull = jax.vjp(lambda x: encode(params, x).mean, x)
        (pulled,) = pull(_signs(keys, h))
        return weight * total(pulled**2)

    return penalty


def _signs(keys: jax.Array, x: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: rng.flat(jax.random.rademacher, key, x.shape[1:], x.dtype))(keys)


def _check(weight: float):
    if not weight >= 0:
        raise InputError(f"a penalty weighed by {weight}; give a number >= 0")
