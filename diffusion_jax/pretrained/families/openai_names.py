"""Names in OpenAI's files of the U-Nets of Improved DDPM (improved-diffusion) and ADM (guided-diffusion), and ours.

Theirs number what is in `input_blocks` and `output_blocks` one after the other, whatever the level.
"""

from collections.abc import Callable, Iterator
from typing import TypeAlias

from diffusion_jax.core.protocols import Heads
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.layouts import Layout, linear, merged, pointwise, pointwise_1d, same
from diffusion_jax.pretrained.wiring import Wiring, affine, labels, norm

Attention: TypeAlias = Callable[[str, str, int], list[Entry]]  # `(theirs, ours, width) -> entries`
Between: TypeAlias = Callable[[str, str], list[Entry]]  # `(theirs, ours) -> entries`


def unet(wiring: Wiring, attention: Attention, down: Between, up: Between) -> list[Entry]:
    """The whole U-Net.

    Args:
      wiring: of the network.
      attention: `(theirs, ours, width) -> entries`: `head_by_head` or `one_by_one`.
      down, up: `(theirs, ours) -> entries` of what stands between levels: `down_convolution` and `up_convolution`, or
        `residual` twice.
    """
    return [
        *affine("time_embed.0", "time_embedding/dense_0", linear),
        *affine("time_embed.2", "time_embedding/dense_1", linear),
        *labels("label_emb", wiring),
        *affine("input_blocks.0.0", "input_conv"),
        *_down(wiring, attention, down),
        *residual("middle_block.0", "middle_block_0"),
        *attention("middle_block.1", "middle_attention", wiring.widths[-1]),
        *residual("middle_block.2", "middle_block_1"),
        *_up(wiring, attention, up),
        *norm("out.0", "output_norm"),
        *affine("out.2", "output_conv"),
    ]


def down_convolution(theirs: str, ours: str) -> list[Entry]:
    """A strided convolution."""
    return affine(f"{theirs}.op", f"{ours}/conv")


def up_convolution(theirs: str, ours: str) -> list[Entry]:
    """A convolution after enlarging."""
    return affine(f"{theirs}.conv", f"{ours}/conv")


def residual(theirs: str, ours: str) -> list[Entry]:
    """A residual block; also one that changes the resolution."""
    return [
        *norm(f"{theirs}.in_layers.0", f"{ours}/norm_0"),
        *affine(f"{theirs}.in_layers.2", f"{ours}/conv_0"),
        *affine(f"{theirs}.emb_layers.1", f"{ours}/time", linear),
        *norm(f"{theirs}.out_layers.0", f"{ours}/norm_1"),
        *affine(f"{theirs}.out_layers.3", f"{ours}/conv_1"),
    ]


def head_by_head(heads: Heads) -> Attention:
    """Attention whose merged layer has query, key and value of the first head, then of the next: the older order.

    `heads` is `width -> number of heads`.
    """
    return lambda theirs, ours, width: _attention(theirs, ours, heads(width))


def one_by_one(theirs: str, ours: str, width: int) -> list[Entry]:
    """Attention whose merged layer has all queries, then all keys, then all values: `use_new_attention_order`."""
    del width
    return _attention(theirs, ours, 1)


def _attention(theirs: str, ours: str, heads: int) -> list[Entry]:
    def qkv(leaf, layout: Layout):
        names = tuple(f"{ours}/{name}/{leaf}" for name in ("query", "key", "value"))
        return names, merged(3, layout, heads)

    return [
        *norm(f"{theirs}.norm", f"{ours}/norm"),
        Entry(f"{theirs}.qkv.weight", *qkv("kernel", pointwise_1d)),
        Entry(f"{theirs}.qkv.bias", *qkv("bias", same)),
        *affine(f"{theirs}.proj_out", f"{ours}/out", pointwise_1d),
    ]


def _down(wiring: Wiring, attention: Attention, down: Between) -> Iterator[Entry]:
    number, shortcuts = 1, wiring.shortcuts()
    for level in wiring.levels:
        for i in range(wiring.blocks_at(level)):
            theirs, ours = f"input_blocks.{number}", f"down_{level}_block_{i}"
            yield from residual(f"{theirs}.0", ours)
            if ours in shortcuts:
                yield from affine(f"{theirs}.0.skip_connection", f"{ours}/shortcut", pointwise)
            if level in wiring.attention_levels:
                yield from attention(f"{theirs}.1", f"down_{level}_attention_{i}", wiring.widths[level])
            number += 1
        if level != wiring.levels[-1]:
            yield from down(f"input_blocks.{number}.0", f"down_{level}_downsample")
            number += 1


def _up(wiring: Wiring, attention: Attention, up: Between) -> Iterator[Entry]:
    number, shortcuts = 0, wiring.shortcuts()
    for level in reversed(wiring.levels):
        for i in range(wiring.blocks_at(level) + 1):
            theirs, ours = f"output_blocks.{number}", f"up_{level}_block_{i}"
            last = 1  # place in the block
            yield from residual(f"{theirs}.0", ours)
            if ours in shortcuts:
                yield from affine(f"{theirs}.0.skip_connection", f"{ours}/shortcut", pointwise)
            if level in wiring.attention_levels:
                yield from attention(f"{theirs}.1", f"up_{level}_attention_{i}", wiring.widths[level])
                last = 2
            if level != 0 and i == wiring.blocks_at(level):
                yield from up(f"{theirs}.{last}", f"up_{level}_upsample")
            number += 1
