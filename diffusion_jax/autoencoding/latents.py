"""Latents of a first stage: what a diffusion model is trained on in place of images (Rombach et al. 2022)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.autoencoding import laws, quantizers
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian, draw
from diffusion_jax.core.protocols import DecodeLatents, Encode, Network, OfParams, Tree


class Halves(NamedTuple):
    """The two halves of an autoencoder, as a first stage.

    Attributes:
      encode: `(params, x [B, ...]) -> q(z | x)`, with `mean`, `std` and `sample` (`core.distributions.Gaussian`).
      decode: `(params, z [B, ...]) -> x [B, ...]`.
    """

    encode: Encode
    decode: DecodeLatents


def drawn(network: Network, decode: DecodeLatents | None = None) -> Halves:
    """The halves of a network that says means and logarithms of variances, which are cut as Stable Diffusion's.

    Args:
      network: its methods `encode` and `decode` take and give arrays.
      decode: in place of its own, the same on tiles (`models.autoencoders.tiled`).
    """
    read = laws.normal_within()
    return Halves(lambda params, x: read(_said(network, params, x, "encode")), decode or decoder(network))


def certain(network: Network, decode: DecodeLatents | None = None) -> Halves:
    """The halves of a network that says codes, and no law of them. Arguments as of `drawn`."""
    return Halves(lambda params, x: laws.certain(_said(network, params, x, "encode")), decode or decoder(network))


def quantised(network: Network, codebook: OfParams, decode: DecodeLatents | None = None) -> Halves:
    """The halves of a network with a codebook [K, d]: latents are what comes before it; decoding begins with it.

    Arguments as of `drawn`.
    """
    decode_codes, nearest = decode or decoder(network), quantizers.vector_quantized(codebook)

    def decode_nearest(params, z):
        keys = rng.per_example(rng.root(0), jnp.arange(len(z)))  # to take the nearest code draws nothing
        return decode_codes(params, nearest(params, keys, laws.certain(z)).z)

    return Halves(lambda params, x: laws.certain(_said(network, params, x, "encode")), decode_nearest)


def latent_shape(halves: Halves, params: Tree, shape: Sequence[int]) -> tuple[int, int, int]:
    """The shape [h, w, c] of the latents of x of `shape`; `params` may be shapes alone. Nothing is computed.

    Raises:
      InputError: the encoder takes no x of that shape.
    """
    x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(lambda params, x: halves.encode(params, x).mean, params, x).shape[1:]


def sampled(q: Gaussian, keys: jax.Array) -> jax.Array:
    """A draw of each example's law, whose variance may be one number for all, with `keys` [B]."""
    return draw(Gaussian(q.mean, jnp.broadcast_to(q.var, q.mean.shape)), keys)


def decoder(network: Network) -> DecodeLatents:
    """`(params, z) -> x` of a network whose method `decode` takes and gives arrays."""
    return lambda params, z: _said(network, params, z, "decode")


def _said(network, params, x, method: str):
    return network.apply({"params": params}, x, method=method)


def few_at_a_time(decode: DecodeLatents, most: int = 2**20) -> DecodeLatents:
    """`decode` of as many examples of a batch at a time as have `most` pixels, at least of one.

    A decoder's maps are hundreds of times as large as its pictures: those of a whole batch would fill any memory.
    """

    def decode_in_turn(params, z):
        batch = len(z)
        _, height, width, _ = jax.eval_shape(decode, params, z).shape
        count = max(n for n in range(1, batch + 1) if batch % n == 0 and (n == 1 or n * height * width <= most))
        if count == batch:
            return decode(params, z)
        parts = jax.lax.map(lambda z: decode(params, z), z.reshape(batch // count, count, *z.shape[1:]))
        return parts.reshape(batch, *parts.shape[2:])

    return decode_in_turn


class Scaling(NamedTuple):
    """Latents as a diffusion model takes them, (z - shift) scale, of about unit variance.

    Attributes:
      scale: a number, or one of each channel, [C]; > 0.
      shift: likewise.
    """

    scale: Any = 1.0
    shift: Any = 0.0

    def scaled(self, z: jax.Array) -> jax.Array:
        """Of z [..., C], as the encoder has it."""
        return (z - self.shift) * self.scale

    def unscaled(self, z: jax.Array) -> jax.Array:
        """The inverse: as the decoder takes it."""
        return z / self.scale + self.shift


class Statistics(NamedTuple):
    """Of draws of latents, over a data set; float64.

    Attributes:
      mean, std: over all entries.
      channel_mean, channel_std: [C], of each channel.
    """

    mean: Any
    std: Any
    channel_mean: Any
    channel_std: Any


def statistics(z: np.ndarray) -> Statistics:
    """Of draws [N, ..., C]."""
    rows = np.asarray(z, np.float64).reshape(-1, z.shape[-1])
    return Statistics(rows.mean(), rows.std(), rows.mean(axis=0), rows.std(axis=0))
