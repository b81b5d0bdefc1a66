"""NCSN++ in diffusers' layout: a UNet2DModel of skip blocks, as in the folders google/ncsnpp-*."""

from collections.abc import Iterable, Mapping
from typing import Any

from diffusion_jax.models.unets.ncsnpp import NCSNpp
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.families import diffusers_configs as configs
from diffusion_jax.pretrained.families import diffusers_names as names
from diffusion_jax.pretrained.families.unet2d import UNET2D
from diffusion_jax.pretrained.layouts import pointwise
from diffusion_jax.pretrained.published import Network, Values
from diffusion_jax.pretrained.wiring import Wiring, affine, norm

NARROWEST = 128  # with fewer channels diffusers has fewer groups here than there
# Names of blocks: whether they have attention, and that residual blocks stand between them.
KINDS = {
    "SkipDownBlock2D": (False, "resnet"),
    "SkipUpBlock2D": (False, "resnet"),
    "AttnSkipDownBlock2D": (True, "resnet"),
    "AttnSkipUpBlock2D": (True, "resnet"),
}


def has_skips(config: Mapping[str, Any]) -> bool:
    """Whether a UNet2DModel's config.json is that of an NCSN++."""
    listed = (config.get(name) for name in ("down_block_types", "up_block_types"))
    return any(str(block) in KINDS for blocks in listed if isinstance(blocks, list | tuple) for block in blocks)


def ncsnpp(config: Mapping[str, Any], weights: Iterable[str] = ()) -> Network:
    """UNet2DModel of skip blocks: `models.NCSNpp`. Arguments and errors as of `unet2d.unet2d`."""
    values = Values(config, UNET2D, "UNet2DModel")
    wiring, _ = configs.wiring_of(values, KINDS, ("down_block_types", "up_block_types"))
    configs.told_only_time(values, wiring)
    scale = values.number("mid_block_scale_factor", 0.0, 1e6)
    if abs(scale**2 - 2) > 1e-9:
        values.refuse("mid_block_scale_factor", scale, "among skip blocks it is sqrt(2)")
    if min(wiring.widths) < NARROWEST:
        values.refuse("block_out_channels", wiring.widths, f"among skip blocks at least {NARROWEST} are expected")
    for name, *allowed in (
        ("time_embedding_type", "fourier"),
        ("resnet_time_scale_shift", "default"),
        ("mid_block_type", "UNetMidBlock2D"),
        ("add_attention", True),
        ("attention_head_dim", None),
        ("norm_num_groups", None, 32),
        ("attn_norm_num_groups", None, 32),
        ("in_channels", 3),
        ("out_channels", 3),
    ):
        values.only(name, *allowed)
    values.values["norm_num_groups"] = 32
    values.values["mid_block_scale_factor"] = 1  # its parts divide by it everywhere
    model = NCSNpp(**configs.fields_of(values, wiring), epsilon=values.number("norm_eps", 1e-12, 1.0))
    old = any(name.endswith(".proj_attn.weight") for name in weights)
    table = _entries(wiring, names.old_attention if old else names.attention)
    return Network(model, configs.example_of(values, wiring), table)


def _entries(wiring: Wiring, attention) -> list[Entry]:
    return [
        *names.begin(wiring),
        Entry("time_proj.weight", ("encode_time/weight",)),
        *_down(wiring, attention),
        *names.middle(wiring, attention),
        *_up(wiring, attention),
        *norm("conv_norm_out", "output_norm"),
        *affine("conv_out", "output_conv"),
    ]


def _between(theirs: str, ours: str) -> list[Entry]:
    return [*names.residual(theirs, ours), *affine(f"{theirs}.conv_shortcut", f"{ours}/shortcut", pointwise)]


def _down(wiring: Wiring, attention):
    for level in wiring.levels:
        theirs, ours = f"down_blocks.{level}", f"down_{level}"
        attends = attention if level in wiring.attention_levels else None
        yield from names.blocks(theirs, ours, level, wiring, wiring.blocks_at(level), attends)
        if level != wiring.levels[-1]:
            yield from _between(f"{theirs}.resnet_down", f"{ours}_downsample")
            yield from affine(f"{theirs}.skip_conv", f"{ours}_image", pointwise)


def _up(wiring: Wiring, attention):
    for level in reversed(wiring.levels):
        theirs, ours = f"up_blocks.{wiring.levels[-1] - level}", f"up_{level}"
        yield from names.blocks(theirs, ours, level, wiring, wiring.blocks_at(level) + 1, None)
        if level in wiring.attended_up:
            yield from attention(level, f"{theirs}.attentions.0", f"{ours}_attention")
        if level != 0:
            yield from _between(f"{theirs}.resnet_up", f"{ours}_upsample")
            yield from norm(f"{theirs}.skip_norm", f"{ours}_image_norm")
            yield from affine(f"{theirs}.skip_conv", f"{ours}_image_conv")
