"""What a bottleneck lets through."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from diffusion_jax.core.protocols import Bottleneck, Coder, Decode, Encode, Rebuild


class Code(NamedTuple):
    """The code of a batch of examples.

    Attributes:
      z: what the decoder is given, [B, ...], or a tree of such.
      rate: KL(q(z | x) || p(z)) or what stands for it, nats [B].
      cost: what trains the bottleneck itself, [B]: the commitment of vector quantisation; 0 of others.
      kept: what is stored of an example: indices of a codebook, int [B, ...], or z; a tree where z is one.
      info: what else is logged, name -> [B].
    """

    z: Any
    rate: jax.Array
    cost: jax.Array
    kept: Any
    info: Mapping[str, jax.Array] = {}  # a pytree takes no other mapping; never changed


def coder(encode: Encode, bottleneck: Bottleneck) -> Coder:
    """`(params, keys [B], x) -> Code`: what `bottleneck` lets through of what `encode` says."""
    return lambda params, keys, x: bottleneck(params, keys, encode(params, x))


def reconstructed(code: Coder, decode: Decode) -> Rebuild:
    """`(params, keys [B], x) -> [B, ...]`: the mean of what `decode` says of the code of x."""
    return lambda params, keys, x: decode(params, code(params, keys, x).z).mean


def total(x: jax.Array) -> jax.Array:
    """[B, ...] -> [B]: the sum over the entries of each example."""
    return x.reshape(x.shape[0], -1).sum(axis=1)
