"""Bottlenecks of discrete codes: the nearest of K vectors (VQ-VAE), or the nearest point of a grid (FSQ).

Each is `(params, keys [B], q) -> Code` of q.mean [B, ..., d], a vector at each position. `Code.kept` are the indices,
int32 [B, ...], and `Code.rate` what they cost under a prior that knows nothing: positions * log K nats. A function of
the same page makes vectors of indices again, for the decoder of a prior's draws.

What teaches the codes is a part of its own (`by_distance` here, `moving.by_average`), and so is how the decoder's
gradient passes (`straight_through`, `rotated`).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.autoencoding.codes import Code, total
from diffusion_jax.core.arrays import namespace, on_channels
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Bottleneck, Decoded, OfParams, Pass, Teach, Tree

sg = jax.lax.stop_gradient
HIGHEST = jax.lax.Precision.HIGHEST


def straight_through(z: jax.Array, codes: jax.Array) -> jax.Array:
    """`codes` [..., d], exactly; the gradient passes to `z` as it is (van den Oord et al. 2017, section 3.2)."""
    return sg(codes) + (z - sg(z))


def rotated(z: jax.Array, codes: jax.Array) -> jax.Array:
    """`codes` [..., d], exactly; the gradient passes to `z` as if it had been turned and stretched to them.

    The Jacobian is the constant |e| / |z| R, R the rotation that takes the direction of z to that of its code e
    (the rotation trick, Fifty et al. 2024, section 4.2). Where they are opposed, R is the reflection that does. At
    z = 0 the gradient passes as it is.
    """
    z_length, z_unit = _direction(sg(z))
    e_length, e_unit = _direction(sg(codes))
    between = z_unit + e_unit
    size = jnp.linalg.norm(between, axis=-1, keepdims=True)
    opposed = size < 1e-3  # of unit vectors: below, the direction of their sum is rounding
    middle = jnp.where(opposed, 0.0, between / jnp.where(opposed, 1.0, size))
    gap = z - sg(z)  # 0, whose gradient is that of z

    def along(unit):
        return (unit * gap).sum(axis=-1, keepdims=True)

    turned = gap - 2 * middle * along(middle) + 2 * e_unit * along(z_unit)
    nowhere = z_length == 0
    stretched = e_length / jnp.where(nowhere, 1.0, z_length) * turned
    return sg(codes) + jnp.where(nowhere, gap, stretched)


def _direction(x):
    """The length [..., 1] of x [..., d], and x of length 1; 0 stays 0."""
    length = jnp.linalg.norm(x, axis=-1, keepdims=True)
    return length, x / jnp.where(length == 0, 1.0, length)


def by_distance(params: Tree, keys: jax.Array, z: jax.Array, indices: jax.Array, codes: jax.Array) -> jax.Array:
    """||sg z - e||^2: descent moves each code to the mean of what it stands for (van den Oord et al., equation 3)."""
    # Looked up by a product, whose gradient is summed in the same order each time; a scatter's is not on GPUs.
    chosen = jnp.matmul(jax.nn.one_hot(indices, len(codes), dtype=codes.dtype), codes, precision=HIGHEST)
    return total((sg(z) - chosen) ** 2)


def vector_quantized(
    codebook: OfParams,
    beta: float = 0.25,
    teach: Teach = by_distance,
    passing: Pass = straight_through,
) -> Bottleneck:
    """The nearest of K codes (van den Oord et al. 2017, equation 3).

    It costs beta ||z - sg e||^2 and what teaches the codes.

    Costs are sums over positions and entries, as all of `objectives` are. Where a paper has the means of D entries of
    a picture and of k of its code, squared errors of both, `beta` is D / k times the paper's, beside a decoder of
    variance 1/2.

    Args:
      codebook: `params -> codes [K, d]`.
      beta: weight of the commitment, the term that moves the encoder; nats a unit of squared distance, >= 0.
      teach: `(params, keys [B], z [B, ..., d], indices [B, ...], codes [K, d]) -> [B]`: a cost, or 0, whose gradient
        teaches the codebook.
      passing: `(z, code of each position) -> what the decoder is given`, all [B, ..., d].

    Raises:
      InputError: beta is not a number >= 0; or, in the call, the codebook is empty or its codes have another length
        than the encoder's vectors.
    """
    if not 0 <= beta < np.inf:
        raise InputError(f"a commitment weighed by beta={beta}; give a number >= 0")

    def bottleneck(params: Tree, keys: jax.Array, q: Any) -> Code:
        z, codes = q.mean, codebook(params)
        indices = nearest(z, codes)
        chosen = sg(codes)[indices]
        commitment = total((z - chosen) ** 2)
        # Both terms are of z itself: after `passing` the gradient of the codes' term would move the encoder instead.
        cost = teach(params, keys, z, indices, codes) + beta * commitment
        return Code(passing(z, chosen), _uniform(indices, len(codes)), cost, indices, {"commitment": commitment})

    return bottleneck


def nearest(z: jax.Array, codes: jax.Array) -> jax.Array:
    """The index of the code nearest to each vector, int32 [...]; of equal distances the first.

    At least in float32, and with products as exact as that: rounded to bfloat16, which some devices do by default,
    they would take a quarter of the vectors to another of 8192 codes.

    Args:
      z: [..., d].
      codes: [K, d].

    Raises:
      InputError: there is no code, or the lengths d differ.
    """
    if codes.ndim != 2 or not codes.size or codes.shape[1] != z.shape[-1]:
        raise InputError(
            f"a codebook {list(codes.shape)} for vectors of {z.shape[-1]} numbers; make it [K, {z.shape[-1]}], K >= 1"
        )
    kind = jnp.promote_types(z.dtype, jnp.float32)
    z, codes = sg(z).astype(kind), sg(codes).astype(kind)
    products = jnp.matmul(z, codes.T, precision=HIGHEST)
    squared = on_channels((codes**2).sum(axis=1), products) - 2 * products  # less |z|^2, which all codes have
    return jnp.argmin(squared, axis=-1).astype(jnp.int32)


def looked_up(codebook: OfParams) -> Decoded:
    """`(params, indices [B, ...]) -> z [B, ..., d]`: the codes that were kept, or that a prior has drawn."""
    return lambda params, indices: codebook(params)[indices]


def finite_scalar(levels: Sequence[int]) -> Bottleneck:
    """Finite scalar quantisation: each of d numbers is rounded to one of its levels (Mentzer et al. 2024, section 3).

    There are prod(levels) codes, and nothing to train.

    What passes is within [-1, 1], 0 among it; the gradient is that without rounding. An even number of levels has one
    more below 0 than above. Two levels are nearly one: the formula has 0 for all numbers above -3.8.

    Args:
      levels: one a number of the encoder's vectors.

    Raises:
      InputError: a number has less than two levels, or there are 2^31 codes or more; or, in the call, the vectors are
        of another length.
    """
    sizes, basis, middle = _checked(levels)
    half = np.subtract(sizes, 1) * (1 + 1e-3) / 2
    offset = np.where(np.mod(sizes, 2), 0.0, 0.5)
    shift = np.arctanh(offset / half)

    def bottleneck(params: Tree, keys: jax.Array, q: Any) -> Code:
        if q.mean.shape[-1] != len(levels):
            raise InputError(f"{len(levels)} levels for vectors of {q.mean.shape[-1]} numbers; give one for each")
        # In float32: halves lose codes.
        z = q.mean.astype(jnp.promote_types(q.mean.dtype, jnp.float32))

        def axes(numbers):
            return on_channels(jnp.asarray(numbers, z.dtype), z)

        bounded = jnp.tanh(z + axes(shift)) * axes(half) - axes(offset)
        steps = sg(jnp.round(bounded)) + (bounded - sg(bounded))
        places = sg(steps).astype(jnp.int32) + on_channels(jnp.asarray(middle), z)
        indices = (places * on_channels(jnp.asarray(basis), z)).sum(axis=-1, dtype=jnp.int32)
        return Code(steps / axes(middle), _uniform(indices, np.prod(sizes)), jnp.zeros(len(z)), indices)

    return bottleneck


def on_grid(levels: Sequence[int]) -> Decoded:
    """`(params, indices [B, ...]) -> z [B, ..., d]`, float32: what `finite_scalar` let through for these indices."""
    sizes, basis, middle = _checked(levels)

    def decoded(params, indices):
        step = indices[..., None]
        size, count, origin = (on_channels(jnp.asarray(x), step) for x in (basis, sizes, middle))
        return ((step // size % count - origin) / origin).astype(jnp.float32)

    return decoded


def _checked(levels: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The levels, what a step of each number counts in an index (the first the least), and the steps below 0."""
    if not len(levels) or min(levels) < 2:
        raise InputError(f"levels {list(levels)} of scalars; give at least one number, and none below 2")
    if (size := np.prod([float(level) for level in levels])) >= 2**31:
        raise InputError(f"levels {list(levels)} make {size:.3g} codes; take less than 2^31 in all")
    whole = np.asarray(levels, np.int32)
    basis = np.concatenate([[1], np.cumprod(whole)[:-1]]).astype(np.int32)
    return whole, basis, whole // 2


def _uniform(indices, size):
    """[B]: nats of each example's indices where all `size` codes are alike."""
    positions = np.prod(indices.shape[1:])
    return jnp.full(len(indices), positions * np.log(size), jnp.float32)


def counted(indices: Any, size: int) -> Any:
    """How often each of `size` codes stands in `indices`, an integer array of any shape: [size]."""
    xp = namespace(indices)
    return xp.bincount(xp.reshape(indices, -1), **{"length" if xp is jnp else "minlength": size})


def perplexity(counts: Any) -> Any:
    """exp(-sum p log p) of counts [K]: how many codes are used, as if equally; 1 to K.

    Of a whole set: that of a batch is smaller, the smaller the batch.
    """
    xp = namespace(counts)
    p = counts / counts.sum()
    return xp.exp(-(p * xp.log(xp.where(p > 0, p, 1.0))).sum())
