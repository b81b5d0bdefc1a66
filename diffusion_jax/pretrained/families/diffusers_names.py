"""Names in diffusers' files of UNet2DModel, UNet2DConditionModel and ControlNetModel, and ours.

Theirs count the way up from the lowest resolution, ours name levels from the full one. What differs between networks
is handed over: functions `(level, theirs, ours) -> entries` for attention, where the middle is the level after the
last, and `(theirs, ours) -> entries` for what stands between levels.
"""

from collections.abc import Callable
from typing import TypeAlias

from diffusion_jax.models.unets.skeleton import of_level
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.layouts import Layout, linear, pointwise
from diffusion_jax.pretrained.wiring import Wiring, affine, labels, norm, unbiased

Between: TypeAlias = Callable[[str, str], list[Entry]]  # `(theirs, ours) -> entries`, of a layer by its two names
Attention: TypeAlias = Callable[[int, str, str], list[Entry]]  # `(level, theirs, ours) -> entries`


def unet(wiring: Wiring, attention: Attention, between: Between) -> list[Entry]:
    """A whole U-Net."""
    return [
        *begin(wiring),
        *_down(wiring, attention, between),
        *middle(wiring, attention),
        *_up(wiring, attention, between),
        *norm("conv_norm_out", "output_norm"),
        *affine("conv_out", "output_conv"),
    ]


def controlnet(wiring: Wiring, attention: Attention, hints: int) -> list[Entry]:
    """A ControlNet: a U-Net's way down and middle, an encoder of `hints` widths, and what they add."""
    hint = "controlnet_cond_embedding"
    skips = sum(wiring.blocks_at(level) + 1 for level in wiring.levels)
    return [
        *begin(wiring),
        *_down(wiring, attention, convolution),
        *middle(wiring, attention),
        *affine(f"{hint}.conv_in", "hint/input_conv"),
        *(e for i in range(2 * (hints - 1)) for e in affine(f"{hint}.blocks.{i}", f"hint/conv_{i}")),
        *affine(f"{hint}.conv_out", "hint/output_conv"),
        *(e for k in range(skips) for e in affine(f"controlnet_down_blocks.{k}", f"control_{k}", pointwise)),
        *affine("controlnet_mid_block", "control_middle", pointwise),
    ]


# ---- What may stand between levels.


def convolution(theirs: str, ours: str) -> list[Entry]:
    """A convolution, after or before the change of resolution."""
    return affine(f"{theirs}.conv", f"{ours}/conv")


def residual(theirs: str, ours: str) -> list[Entry]:
    """A residual block, whose first half changes the resolution."""
    return [
        *norm(f"{theirs}.norm1", f"{ours}/norm_0"),
        *affine(f"{theirs}.conv1", f"{ours}/conv_0"),
        *affine(f"{theirs}.time_emb_proj", f"{ours}/time", linear),
        *norm(f"{theirs}.norm2", f"{ours}/norm_1"),
        *affine(f"{theirs}.conv2", f"{ours}/conv_1"),
    ]


# ---- Kinds of attention.


def attention(level: int, theirs: str, ours: str) -> list[Entry]:
    """Self-attention, by the names since diffusers 0.17."""
    return _attention(theirs, ours, ("to_q", "to_k", "to_v", "to_out.0"))


def old_attention(level: int, theirs: str, ours: str) -> list[Entry]:
    """Self-attention, by the names before, which most published files of UNet2DModel have."""
    return _attention(theirs, ours, ("query", "key", "value", "proj_attn"))


def transformer(depth: int | tuple[int, ...], project: Layout) -> Attention:
    """Blocks that read a text, between two projections: `pointwise` convolutions or `linear` layers.

    There are `depth` of them, everywhere, or at each level and in the middle.
    """

    def entries(level: int, theirs: str, ours: str) -> list[Entry]:
        return [
            *norm(f"{theirs}.norm", f"{ours}/norm"),
            *affine(f"{theirs}.proj_in", f"{ours}/project_in", project),
            *(
                e
                for i in range(of_level(depth, level))
                for e in _reading(f"{theirs}.transformer_blocks.{i}", f"{ours}/block_{i}")
            ),
            *affine(f"{theirs}.proj_out", f"{ours}/project_out", project),
        ]

    return entries


def _attention(theirs, ours, names):
    pairs = zip(names, ("query", "key", "value", "out"), strict=True)
    return [
        *norm(f"{theirs}.group_norm", f"{ours}/norm"),
        *(e for a, b in pairs for e in affine(f"{theirs}.{a}", f"{ours}/{b}", linear)),
    ]


def _reading(theirs, ours):
    def heard(number, kind):
        names = (("to_q", "query"), ("to_k", "key"), ("to_v", "value"))
        return [
            *(e for a, b in names for e in unbiased(f"{theirs}.attn{number}.{a}", f"{ours}/{kind}_{b}", linear)),
            *affine(f"{theirs}.attn{number}.to_out.0", f"{ours}/{kind}_out", linear),
        ]

    return [
        *norm(f"{theirs}.norm1", f"{ours}/norm_0"),
        *heard(1, "self"),
        *norm(f"{theirs}.norm2", f"{ours}/norm_1"),
        *heard(2, "cross"),
        *norm(f"{theirs}.norm3", f"{ours}/norm_2"),
        *affine(f"{theirs}.ff.net.0.proj", f"{ours}/mlp_in", linear),
        *affine(f"{theirs}.ff.net.2", f"{ours}/mlp_out", linear),
    ]


# ---- The ways down and up.


def begin(wiring: Wiring):
    return [
        *affine("conv_in", "input_conv"),
        *affine("time_embedding.linear_1", "time_embedding/dense_0", linear),
        *affine("time_embedding.linear_2", "time_embedding/dense_1", linear),
        *unbiased("time_embedding.cond_proj", "embed_early_guidance_scale/dense", linear) * wiring.scales,
        *labels("class_embedding", wiring),
    ]


def blocks(theirs: str, ours: str, level: int, wiring: Wiring, count: int, attention: Attention | None):
    shortcuts = wiring.shortcuts()
    for i in range(count):
        yield from residual(f"{theirs}.resnets.{i}", f"{ours}_block_{i}")
        if f"{ours}_block_{i}" in shortcuts:
            yield from affine(f"{theirs}.resnets.{i}.conv_shortcut", f"{ours}_block_{i}/shortcut", pointwise)
        if attention:
            yield from attention(level, f"{theirs}.attentions.{i}", f"{ours}_attention_{i}")


def _down(wiring, attention, between):
    for level in wiring.levels:
        theirs, ours = f"down_blocks.{level}", f"down_{level}"
        attends = attention if level in wiring.attention_levels else None
        yield from blocks(theirs, ours, level, wiring, wiring.blocks_at(level), attends)
        if level != wiring.levels[-1]:
            yield from between(f"{theirs}.downsamplers.0", f"{ours}_downsample")


def middle(wiring: Wiring, attention: Attention):
    return (
        []
        if not wiring.middle
        else [
            *residual("mid_block.resnets.0", "middle_block_0"),
            *(
                attention(len(wiring.widths), "mid_block.attentions.0", "middle_attention")
                if wiring.middle_attention
                else ()
            ),
            *residual("mid_block.resnets.1", "middle_block_1"),
        ]
    )


def _up(wiring, attention, between):
    for level in reversed(wiring.levels):
        theirs, ours = f"up_blocks.{wiring.levels[-1] - level}", f"up_{level}"
        attends = attention if level in wiring.attended_up else None
        yield from blocks(theirs, ours, level, wiring, wiring.blocks_at(level) + 1, attends)
        if level != 0:
            yield from between(f"{theirs}.upsamplers.0", f"{ours}_upsample")
