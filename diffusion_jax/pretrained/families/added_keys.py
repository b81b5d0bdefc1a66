"""UNet2DConditionModel of diffusers with "Simple" blocks: Karlo's decoder, and DeepFloyd IF's first two networks.

Their attention has a text's keys beside the pixels' (`models.AddedKeyUNet`).
"""

from collections.abc import Mapping
from functools import reduce
from typing import Any

from diffusion_jax.core.protocols import Activation
from diffusion_jax.models.unets.added_keys import AddedKeyUNet
from diffusion_jax.models.unets.adm import heads_of_width
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.families import diffusers_names as names
from diffusion_jax.pretrained.families.diffusers_configs import (
    ACTIVATIONS,
    activation_of,
    as_openai,
    equal,
    example_of,
    fields_of,
    only_crossing,
    wiring_of,
)
from diffusion_jax.pretrained.families.told import additions, classes, tokens
from diffusion_jax.pretrained.families.unet2d_condition import UNET2D_CONDITION
from diffusion_jax.pretrained.layouts import linear
from diffusion_jax.pretrained.published import Network, Values, shape
from diffusion_jax.pretrained.wiring import affine, norm

DEFAULTS = UNET2D_CONDITION | {
    "cross_attention_norm": None,
    "mid_block_only_cross_attention": None,
    "resnet_skip_time_act": False,
    "time_embedding_act_fn": None,
}
KINDS = {
    "ResnetDownsampleBlock2D": (False, "resnet"),
    "ResnetUpsampleBlock2D": (False, "resnet"),
    "SimpleCrossAttnDownBlock2D": (True, "resnet"),
    "SimpleCrossAttnUpBlock2D": (True, "resnet"),
}
MIDDLE = "UNetMidBlock2DSimpleCrossAttn"
TOKEN_GROUPS = 32  # of `cross_attention_norm`, whatever norm_num_groups
FIXED = {
    "resnet_time_scale_shift": "scale_shift",
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "attention_type": "default",
    "time_cond_proj_dim": None,
    # Of kinds of blocks that are not among these:
    "transformer_layers_per_block": 1,
    "use_linear_projection": False,
}


def has_added_keys(config: Mapping[str, Any]) -> bool:
    """Whether a UNet2DConditionModel's config.json is of these."""
    blocks = config.get("down_block_types")
    return isinstance(blocks, list | tuple) and any(str(block) in KINDS for block in blocks)


def added_keys(config: Mapping[str, Any]) -> Network:
    """UNet2DConditionModel of "Simple" blocks: `models.AddedKeyUNet`, which is told "tokens" and may be told a mask.

    And "label", "noise_level" or "vector" where it has a class embedding. Here `attention_head_dim` is the width of a
    head. Arguments and errors as of `unet2d`.
    """
    values = Values(config, DEFAULTS, "UNet2DConditionModel")
    wiring, _ = wiring_of(values, KINDS, ("down_block_types", "up_block_types"))
    as_openai(values)
    for name, value in FIXED.items():
        values.only(name, value)
    wiring = wiring._replace(middle=values.only("mid_block_type", MIDDLE, None) is not None)
    levels = len(wiring.widths)
    only = _text_only(values, levels)
    normed = values.only("cross_attention_norm", None, "group_norm") is not None
    given, projected, projection = tokens(values, levels)
    read = given if projected is None else projected
    if normed and read % TOKEN_GROUPS:
        values.refuse("cross_attention_dim", read, f"a multiple of {TOKEN_GROUPS} is expected")
    told = classes(values, wiring) | additions(values, given)
    divisor = values.number("resnet_out_scale_factor", 1e-6, 1e6)
    if values["mid_block_scale_factor"] != divisor:
        found = values["mid_block_scale_factor"]
        values.refuse("mid_block_scale_factor", found, f"that of resnet_out_scale_factor, {divisor}, is expected")
    fields = fields_of(values, wiring)
    fields["embed"] |= told.embed
    model = AddedKeyUNet(
        heads=heads_of_width(equal(values, "attention_head_dim", levels)),
        token_features=projected,
        token_groups=TOKEN_GROUPS if normed else None,
        text_only_levels=only,
        divisor=divisor,
        embedding_activation=_embedding_activation(values),
        **fields | {"middle_scale": 1.0},
    )
    table = [*names.unet(wiring, _attention(only, normed), names.residual), *told.entries, *projection]
    return Network(model, example_of(values, wiring, tokens=shape(1, 1, given), **told.example), table)


def _text_only(values: Values, levels: int) -> tuple[int, ...]:
    """Levels where pixels attend to the text alone; the middle is the level after the last."""
    found = only_crossing(values, levels)
    middle = values.only("mid_block_only_cross_attention", None, False, True)
    if middle is None:  # as everywhere, if that is said in one word
        middle = values["only_cross_attention"] is True
    return (*found, levels) if middle else found


def _embedding_activation(values: Values) -> Activation | None:
    """What acts on the embedding in all, before the residual blocks and within them; None for `act_fn`."""
    before = values.only("time_embedding_act_fn", None, *ACTIVATIONS)
    skipped = values.only("resnet_skip_time_act", False, True)
    if before is None and not skipped:
        return None
    acting = [] if before is None else [ACTIVATIONS[before]]
    acting += [] if skipped else [activation_of(values)]
    return lambda h: reduce(lambda h, act: act(h), acting, h)


def _attention(only: tuple[int, ...], normed: bool) -> names.Attention:
    def entries(level: int, theirs: str, ours: str) -> list[Entry]:
        pairs = {"to_q": "query", "add_k_proj": "text_key", "add_v_proj": "text_value", "to_out.0": "out"}
        if level not in only:
            pairs |= {"to_k": "key", "to_v": "value"}
        return [
            *norm(f"{theirs}.group_norm", f"{ours}/norm"),
            *(norm(f"{theirs}.norm_cross", f"{ours}/norm_tokens") if normed else ()),
            *(entry for a, b in pairs.items() for entry in affine(f"{theirs}.{a}", f"{ours}/{b}", linear)),
        ]

    return entries
