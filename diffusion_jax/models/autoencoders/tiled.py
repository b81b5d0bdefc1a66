"""A decoder that works on tiles: as much memory for a large picture as for a small one, but for its lower levels.

Convolutions look at a few neighbours. What couples all pixels of a picture are attention, in the middle, and group
normalisation, everywhere. So the lower levels, whose maps are small, are computed whole; the upper ones in tiles that
overlap by as much as their convolutions see, each normalised by the statistics of the whole picture. These are found
in sweeps over the tiles: after n sweeps those of the first n normalisations are exact, and those of the others near.
So there are no seams. Decoders that normalise each tile by itself are faster, and shift the colours of each.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from diffusion_jax.core.arrays import on_channels
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import DecodeLatents
from diffusion_jax.models.autoencoders.convolutional import ConvolutionalAutoencoder, Decoder, Half
from diffusion_jax.models.blocks.layers import GroupNorm

UPPER = 2  # levels that are computed in tiles
SWEEPS = 9  # of the 13 after which those of Stable Diffusion's decoder are exact


class _Lower(Decoder):
    @nn.compact
    def __call__(self, z):
        return self.begin(z, UPPER)


class _Upper(Decoder):
    @nn.compact
    def __call__(self, h):
        return self.end(h, UPPER)


def halo(decoder: Half) -> int:
    """How many pixels beyond a tile, of the map that the upper levels begin with, they look at."""
    seen = 0
    for number in range(UPPER):
        convolutions = 2 * (decoder.blocks + 1) + 1 + (number == 0)  # with that after enlarging, and the last
        seen = -(-(seen + convolutions) // 2)
    return seen


def tiled(network: ConvolutionalAutoencoder, side: int, sweeps: int = SWEEPS) -> DecodeLatents:
    """`(params, z [B, h, w, dim]) -> [B, H, W, channels]` of a network's `decode`, one picture and tile at a time.

    Args:
      network: of at least `UPPER` + 1 levels, without attention on the upper ones.
      side: of a tile in pixels of the picture; a picture that is no larger is decoded whole.
      sweeps: over the tiles, to find the statistics of the whole.

    Raises:
      InputError: the network is another, or its convolutions see more than the tile.
    """
    lower, upper = network.half(_Lower, network.channels), network.half(_Upper, network.channels)
    if len(network.widths) <= UPPER or any(level < UPPER for level in network.attention_levels):
        raise InputError(f"only decoders of more than {UPPER} levels, with attention below them, work on tiles")
    seen, size = halo(lower), side // 2**UPPER
    core = size - 2 * seen
    if core < 1:
        raise InputError(f"tiles of {side} pixels are too small for this decoder; take {2**UPPER * (2 * seen + 1)}")

    def decode(params, z):
        whole = max(z.shape[1:3]) * 2 ** (len(network.widths) - 1) <= side
        if whole:
            return network.apply({"params": params}, z, method="decode")
        z = network.apply({"params": params}, z, method="begun")
        return lax.map(lambda z: one(params["decoder"], z[None])[0], z)

    def one(params, z):
        h = lower.apply({"params": params}, z)
        rows, columns = (_tiles(length, size, core, seen) for length in h.shape[1:3])
        places = jnp.stack([jnp.stack([*row, *column]) for row in rows for column in columns])
        tile = (min(size, h.shape[1]), min(size, h.shape[2]))

        def shown(place):
            return lax.dynamic_slice(h, (0, place[0], place[3], 0), (1, *tile, h.shape[3]))

        def inside(place):
            row, column = (_within(place[i : i + 3], length) for i, length in ((0, tile[0]), (3, tile[1])))
            return row[:, None] & column[None]

        def normalised(place, moments):
            found: dict[str, Any] = {}
            with nn.intercept_methods(_normalising(moments, inside(place), found)):
                pixels = upper.apply({"params": params}, shown(place))
            return pixels, found

        def sweep(moments):
            parts = lax.map(lambda place: normalised(place, moments)[1], places)
            return _moments(jax.tree.map(lambda x: x.sum(0), parts), moments)

        moments = lax.fori_loop(1, sweeps, lambda _, moments: sweep(moments), sweep({}))
        scale = 2**UPPER
        canvas = jnp.zeros((1, scale * h.shape[1], scale * h.shape[2], network.channels), jnp.float32)

        def write(canvas, place):
            pixels, _ = normalised(place, moments)
            start = (0, scale * place[0], scale * place[3], 0)
            mask = inside(place).repeat(scale, 0).repeat(scale, 1)[None, :, :, None]
            old = lax.dynamic_slice(canvas, start, pixels.shape)
            return lax.dynamic_update_slice(canvas, jnp.where(mask, pixels, old), start), None

        return lax.scan(write, canvas, places)[0]

    return decode


def _tiles(length: int, size: int, core: int, seen: int) -> list[tuple[int, int, int]]:
    """Along one side, (where a tile begins, where its own part begins, where that ends).

    A tile never reaches beyond the map, whose border is then its own, with the same zeros around it.
    """
    last = max(0, length - size)
    return [(min(max(begin - seen, 0), last), begin, min(begin + core, length)) for begin in range(0, length, core)]


def _within(place: jax.Array, length: int) -> jax.Array:
    """Which rows of a tile are its own, bool [length]."""
    row = place[0] + jnp.arange(length)
    return (row >= place[1]) & (row < place[2])


def _normalising(moments: Mapping[str, Any], own: jax.Array, found: dict[str, Any]):
    """Group normalisation by the statistics of the whole picture, and sums for them over a tile's own pixels."""

    def intercept(call, args, kwargs, context):
        module = context.module
        if not isinstance(module, GroupNorm):
            return call(*args, **kwargs)
        name, x = "/".join(module.path), args[0].astype(jnp.float32)
        groups, each, scale = module.groups, x.shape[-1] // module.groups, x.shape[1] // own.shape[0]
        # Sums are taken about what was thought to be the mean: where that is near, nothing cancels.
        about, _ = moments.get(name, (jnp.zeros(groups), None))
        mean, var = moments.get(name) or _of_tile(x, groups)
        weight = own.repeat(scale, 0).repeat(scale, 1)[None, :, :, None].astype(jnp.float32)
        gap = x - on_channels(about.repeat(each), x)
        found[name] = {
            "count": weight.sum() * each,
            "sum": _grouped((weight * gap).sum((0, 1, 2)), groups),
            "squares": _grouped((weight * gap**2).sum((0, 1, 2)), groups),
        }
        gain = module.get_variable("params", "scale") * lax.rsqrt(var + module.epsilon).repeat(each)
        bias = module.get_variable("params", "bias") - mean.repeat(each) * gain
        return (x * on_channels(gain, x) + on_channels(bias, x)).astype(module.dtype)

    return intercept


def _of_tile(x: jax.Array, groups: int):
    mean = _grouped(x.mean((0, 1, 2)), groups) * groups / x.shape[-1]
    gap = x - on_channels(mean.repeat(x.shape[-1] // groups), x)
    return mean, _grouped((gap**2).mean((0, 1, 2)), groups) * groups / x.shape[-1]


def _grouped(x: jax.Array, groups: int) -> jax.Array:
    """[C] -> [groups], sums."""
    return x.reshape(groups, -1).sum(1)


def _moments(sums: Mapping[str, Mapping[str, jax.Array]], about: Mapping[str, Any]) -> dict[str, Any]:
    """(mean, variance) [groups] of each normalisation, of sums about other means."""
    found = {}
    for name, part in sums.items():
        off = part["sum"] / part["count"]
        mean = off + about[name][0] if about else off
        found[name] = mean, part["squares"] / part["count"] - off**2
    return found
