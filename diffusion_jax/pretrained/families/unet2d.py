"""UNet2DModel of diffusers: networks that are told the time, and a label where they have labels."""

from collections.abc import Iterable, Mapping
from typing import Any

from diffusion_jax.core.protocols import Heads
from diffusion_jax.models.blocks.layers import SAME, cosinusoid, sinusoid
from diffusion_jax.models.blocks.time_table import TimeTable
from diffusion_jax.models.unets.adm import AdditiveUNet, ADMUNet, ImprovedUNet, heads_always, heads_of_width
from diffusion_jax.models.unets.open import FourierUNet, OpenUNet
from diffusion_jax.models.unets.skeleton import Skeleton
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.families import diffusers_names as names
from diffusion_jax.pretrained.families.diffusers_configs import (
    SHARED,
    as_openai,
    example_of,
    fields_of,
    told_only_time,
    wiring_of,
)
from diffusion_jax.pretrained.published import Network, Values

UNET2D = SHARED | {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"),
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ("AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "block_out_channels": (224, 448, 672, 896),
    "downsample_type": "conv",
    "upsample_type": "conv",
    "attn_norm_num_groups": None,
    "add_attention": True,
    "num_train_timesteps": None,
}
# Names of blocks: whether they have attention, and what follows them (None: as the config says, or nothing).
KINDS = {
    "DownBlock2D": (False, "conv"),
    "UpBlock2D": (False, "conv"),
    "AttnDownBlock2D": (True, None),
    "AttnUpBlock2D": (True, None),
    "ResnetDownsampleBlock2D": (False, "resnet"),
    "ResnetUpsampleBlock2D": (False, "resnet"),
}


def unet2d(config: Mapping[str, Any], weights: Iterable[str] = ()) -> Network:
    """UNet2DModel: DDPM's and its relatives, Improved DDPM's and ADM's, consistency models' among the last.

    Args:
      config: its config.json.
      weights: names of the arrays in its file, which show whether attention has its older names.

    Raises:
      InputError: a value that these networks do not have.
    """
    values = Values(config, UNET2D, "UNet2DModel")
    wiring, between = wiring_of(values, KINDS, ("down_block_types", "up_block_types"))
    told_only_time(values, wiring)
    wiring = wiring._replace(middle_attention=values.only("add_attention", False, True))
    wiring = wiring._replace(middle=values.only("mid_block_type", "UNetMidBlock2D", None) is not None)
    width = values["attention_head_dim"]
    heads = heads_always(1) if width is None else heads_of_width(values.integer("attention_head_dim"))
    model = {"default": _plain, "scale_shift": _modulated}[
        values.only("resnet_time_scale_shift", "default", "scale_shift")
    ](values, between, heads, fields_of(values, wiring))
    old = any(name.endswith(".proj_attn.weight") for name in weights)
    table = names.unet(
        wiring,
        names.old_attention if old else names.attention,
        {"conv": names.convolution, "resnet": names.residual}[between],
    )
    if values["time_embedding_type"] != "positional":
        table += [Entry("time_proj.weight", ("encode_time/weight",))]
    return Network(model, example_of(values, wiring), table)


def _plain(values: Values, between: str, heads: Heads, fields: Mapping) -> Skeleton:
    if fields["middle"] and fields["middle_attention"]:
        # Without groups of its own, it has those of all.
        values.only("attn_norm_num_groups", None, values["norm_num_groups"])
    if between == "resnet":
        as_openai(values)
        return AdditiveUNet(heads=heads, **fields)
    padding = {0: ((0, 1), (0, 1)), 1: SAME}[values.only("downsample_padding", 0, 1)]
    fields = {"heads": heads, "padding": padding, "epsilon": values.number("norm_eps", 1e-12, 1.0), **fields}
    kind = values.only("time_embedding_type", "positional", "fourier", "learned")
    if kind == "fourier":
        return FourierUNet(**fields)
    if kind == "learned":
        return OpenUNet(encode_time=TimeTable(values.integer("num_train_timesteps")), **fields)
    shifts = {(False, 1): sinusoid, (True, 0): cosinusoid}
    convention = (values.only("flip_sin_to_cos", False, True), values.only("freq_shift", 0, 1))
    if convention not in shifts:
        values.refuse(
            "freq_shift", convention[1], f"with flip_sin_to_cos = {convention[0]} only {int(not convention[0])}"
        )
    return OpenUNet(encode_time=shifts[convention], **fields)


def _modulated(values: Values, between: str, heads: Heads, fields: Mapping) -> ADMUNet:
    if fields["middle"] and fields["middle_attention"]:
        # Without groups of its own, it has no normalisation in such networks.
        values.only("attn_norm_num_groups", values["norm_num_groups"])
    as_openai(values)
    if between == "conv":
        values.only("downsample_padding", 1)
    return {"conv": ImprovedUNet, "resnet": ADMUNet}[between](heads=heads, **fields)
