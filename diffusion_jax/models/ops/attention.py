"""Attention: softmax(q k^T / sqrt(d)) v, in several heads, by XLA or by cuDNN."""

import math

import jax
import jax.numpy as jnp
from jax import lax

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Attend
from diffusion_jax.models.ops import products

MANY = 2**20  # weights of one head


def multi_head(query: jax.Array, key: jax.Array, value: jax.Array, heads: int, attend: Attend) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v in each of `heads` slices of d features: [B, N, C], twice [B, L, C] -> [B, N, C].

    The softmax is float32. `attend` (`by_xla`, `flash`) computes it for [B, N, heads, d] and twice [B, L, heads, d].

    Raises:
      InputError: `heads` does not divide C.
    """
    if query.shape[-1] % heads:
        raise InputError(
            f"{query.shape[-1]} features do not divide into {heads} heads of attention; take a divisor of them"
        )
    query, key, value = (x.reshape(*x.shape[:2], heads, -1) for x in (query, key, value))
    out = attend(query, key, value)
    return out.reshape(*out.shape[:2], -1)


def by_xla(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """Attention as XLA computes it, with memory that grows with heads N L: [B, N, heads, d] -> the same.

    On a CPU, where N L is large, one head of one example after the other, whose N L weights stay in the caches: less
    than half of the time for 1024 tokens and more (docs/measured/performance.md).
    """
    heads_first = tuple(x.swapaxes(1, 2) for x in (query, key, value))

    def in_turn(*arrays):
        one_by_one = tuple(x.reshape(-1, *x.shape[2:]) for x in arrays)
        return jax.lax.map(lambda one: softmax_attention(*one), one_by_one).reshape(*arrays[0].shape[:3], -1)

    if query.shape[1] * key.shape[1] < MANY:
        return softmax_attention(*heads_first).swapaxes(1, 2)
    return jax.lax.platform_dependent(*heads_first, cpu=in_turn, default=softmax_attention).swapaxes(1, 2)


@jax.custom_jvp
def softmax_attention(query: jax.Array, key: jax.Array, value: jax.Array):
    """softmax(q k^T / sqrt(d)) v: [..., N, d], twice [..., L, d] -> [..., N, d]."""
    return _read(_weights(query, key), value)


@softmax_attention.defjvp
def _change(arrays, changes):
    """With weights p and result o, o' = p v' + (p s') v - (sum of p s' over L) o, where s' is what q k^T changes by.

    JAX would give sum(p s') to each of the L weights. Here it goes to o, and so does its transpose: the backward pass
    adds up d products for each of N queries and not L (as Dao et al. 2022, appendix B.2), which XLA does slowly.
    """
    (query, key, value), (query_change, key_change, value_change) = arrays, changes
    p = _weights(query, key)
    o = _read(p, value)
    moved = p * (_products(query_change, key) + _products(query, key_change))
    change = _linear(p, value_change) + _linear(moved, value)
    return o, change - (moved.sum(-1, keepdims=True) * o).astype(o.dtype)


def _products(query, key):
    wide = jnp.promote_types(query.dtype, jnp.float32)
    return jnp.einsum("...nd,...ld->...nl", query, key, preferred_element_type=wide) / math.sqrt(query.shape[-1])


def _weights(query, key):
    return jax.nn.softmax(_products(query, key))


def _read(p, value):
    return _linear(p, value, products.dot_general)


def _linear(p, value, dot_general=lax.dot_general):
    """p v, [..., N, L] and [..., L, d] -> [..., N, d]."""
    leading = tuple(range(p.ndim - 2))
    return dot_general(p.astype(value.dtype), value, (((p.ndim - 1,), (p.ndim - 2,)), (leading, leading)))


def biased(bias: jax.Array, scale: float | None = None) -> Attend:
    """softmax(scale q k^T + bias) v as XLA computes it, an `attend` of `multi_head`; memory grows with heads N L.

    Args:
      bias: float, of four axes that broadcast to [B, heads, N, L]: a mask (`hiding`), or what positions say.
      scale: of the products; 1 / sqrt(d) by default.
    """

    def attend(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
        wide = jnp.promote_types(query.dtype, jnp.float32)
        logits = jnp.einsum("bnhd,blhd->bhnl", query, key, preferred_element_type=wide)
        weights = jax.nn.softmax(logits * (query.shape[-1] ** -0.5 if scale is None else scale) + bias)
        return _read(weights, value.swapaxes(1, 2)).swapaxes(1, 2)

    return attend


def masked(mask: jax.Array) -> Attend:
    """Attention that reads where `mask`, bool [B, L], is true, by XLA; -10000 is added to the other products.

    So an example without anything to read reads the mean of all, and not NaN.
    """

    def attend(query, key, value):
        query, key, value = (x.swapaxes(1, 2) for x in (query, key, value))
        logits = _products(query, key)
        added = jnp.where(mask[:, None, None, :], 0.0, -1e4).astype(logits.dtype)
        return _read(jax.nn.softmax(logits + added), value).swapaxes(1, 2)

    return attend


def hiding(seen: jax.Array) -> jax.Array:
    """The bias that hides what is not `seen` (bool): float32 of its shape, 0 or the lowest number.

    It is finite, so a query that sees nothing reads the mean of all, and not NaN.
    """
    return jnp.where(seen, 0.0, jnp.finfo(jnp.float32).min).astype(jnp.float32)


def flash(query: jax.Array, key: jax.Array, value: jax.Array) -> jax.Array:
    """cuDNN's fused attention (Dao et al. 2022), whose memory does not grow with N L: [B, N, heads, d] -> the same.

    It has derivatives in reverse only; a likelihood by the ODE wants them forward, and so the default `attend`.

    Raises:
      InputError: this is not an NVIDIA GPU from Ampere on with cuDNN, the type is neither bfloat16 nor float16, or
        d is not a multiple of 8 up to 128 (256 from Hopper on).
    """
    try:
        return jax.nn.dot_product_attention(query, key, value, implementation="cudnn")
    except (RuntimeError, NotImplementedError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"cuDNN's attention cannot run here ({reason}); set model.flash to False") from error
