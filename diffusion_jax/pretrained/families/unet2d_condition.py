"""UNet2DConditionModel and ControlNetModel of diffusers, as Stable Diffusion and SDXL have them: they read a text."""

from collections.abc import Iterable, Mapping
from typing import Any

from diffusion_jax.core.protocols import Heads
from diffusion_jax.models.blocks.conditioning import GuidanceEmbedding
from diffusion_jax.models.unets.adm import heads_always, heads_of_width
from diffusion_jax.models.unets.controlnet import ControlNet, HintEncoder
from diffusion_jax.models.unets.skeleton import of_level
from diffusion_jax.models.unets.text_unet import TextUNet
from diffusion_jax.pretrained.families import diffusers_names as names
from diffusion_jax.pretrained.families.diffusers_configs import (
    SHARED,
    as_openai,
    by_level,
    equal,
    example_of,
    fields_of,
    only_crossing,
    wiring_of,
)
from diffusion_jax.pretrained.families.told import Told, additions, classes, tokens
from diffusion_jax.pretrained.layouts import linear, pointwise
from diffusion_jax.pretrained.published import LAYERS, Network, Values, shape
from diffusion_jax.pretrained.wiring import Wiring

CROSS = "UNetMidBlock2DCrossAttn"
CONDITIONED = SHARED | {
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": CROSS,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 1280,
    "encoder_hid_dim": None,
    "encoder_hid_dim_type": None,
    "transformer_layers_per_block": 1,
    "addition_embed_type": None,
    "addition_time_embed_dim": None,
    "projection_class_embeddings_input_dim": None,
    "use_linear_projection": False,
    "upcast_attention": False,  # ours has its softmax in float32 always
    "addition_embed_type_num_heads": 64,  # of an embedding that would have to be asked for
    "only_cross_attention": False,
}
UNET2D_CONDITION = CONDITIONED | {
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    "conv_in_kernel": 3,
    "conv_out_kernel": 3,
    "attention_type": "default",
    "resnet_out_scale_factor": 1.0,
    "time_cond_proj_dim": None,
}
CONTROLNET = CONDITIONED | {
    "conditioning_channels": 3,
    "controlnet_conditioning_channel_order": "rgb",
    "conditioning_embedding_out_channels": (16, 32, 96, 256),
}

# Names of blocks: whether they have attention, and what follows them.
READING = {
    "DownBlock2D": (False, "conv"),
    "UpBlock2D": (False, "conv"),
    "CrossAttnDownBlock2D": (True, "conv"),
    "CrossAttnUpBlock2D": (True, "conv"),
}


def unet2d_condition(config: Mapping[str, Any]) -> Network:
    """UNet2DConditionModel as Stable Diffusion 1 and 2 and SDXL have it; it is told "tokens".

    Where it has a class embedding it is told "label", "noise_level" or "vector" too; in SDXL "pooled" and "time_ids",
    in latent consistency models "guidance_scale". Arguments and errors as of `unet2d`.
    """
    values = Values(config, UNET2D_CONDITION, "UNet2DConditionModel")
    wiring, model, attention, told = _reading(values, ("down_block_types", "up_block_types"), CROSS, None)
    for name, value in (("conv_in_kernel", 3), ("conv_out_kernel", 3), ("attention_type", "default")):
        values.only(name, value)
    values.number("resnet_out_scale_factor", -1e6, 1e6)  # of kinds of blocks that are not among these
    wiring, model = _scaled(values, wiring, model)
    table = [*names.unet(wiring, attention, names.convolution), *told.entries]
    return Network(model, example_of(values, wiring, **told.example), table)


def controlnet(config: Mapping[str, Any]) -> Network:
    """ControlNetModel for Stable Diffusion 1 and 2 and SDXL; it is told "hint" too, and gives residuals.

    Arguments and errors as of `unet2d`.
    """
    values = Values(config, CONTROLNET, "ControlNetModel")
    wiring, unet, attention, told = _reading(values, ("down_block_types",), CROSS)
    equal(values, "layers_per_block", len(wiring.widths))
    values.only("time_embedding_dim", None, 4 * wiring.widths[0])
    values.only("class_embed_type", None, "identity", "projection")
    values.only("encoder_hid_dim", None)
    values.only("controlnet_conditioning_channel_order", "rgb")
    widths = values.integers("conditioning_embedding_out_channels")
    table = [*names.controlnet(wiring, attention, len(widths)), *told.entries]
    side = 2 ** (wiring.levels[-1] + len(widths) - 1)
    hint = shape(1, side, side, values.integer("conditioning_channels"))
    example = example_of(values, wiring, hint=hint, **told.example)
    return Network(ControlNet(unet, HintEncoder(widths)), example, table)


def _reading(
    values: Values, blocks: Iterable[str], *middles: str | None
) -> tuple[Wiring, TextUNet, names.Attention, Told]:
    """The wiring, the module, the names of its attention and what else it is told.

    `middles` are what `mid_block_type` may be.
    """
    wiring, _ = wiring_of(values, READING, blocks)
    values.only("mid_block_scale_factor", 1)  # another would not be that of the middle's attention
    as_openai(values)
    wiring = wiring._replace(middle=values.only("mid_block_type", *middles) is not None)
    values.only("resnet_time_scale_shift", "default")
    values.only("downsample_padding", 1)
    given, projected, table = tokens(values, len(wiring.widths))
    told = classes(values, wiring) | additions(values, given) | Told({}, {"tokens": shape(1, 1, given)}, table)
    depth = _depth(values, wiring)
    project = linear if values.only("use_linear_projection", False, True) else pointwise
    fields = fields_of(values, wiring)
    fields["embed"] |= told.embed
    heads, listening = _heads(values, wiring.widths), only_crossing(values, len(wiring.widths))
    model = TextUNet(heads=heads, depth=depth, listening_levels=listening, token_features=projected, **fields)
    return wiring, model, names.transformer(depth, project), told


def _depth(values: Values, wiring: Wiring) -> int | tuple[int, ...]:
    """Of transformers: everywhere, or at each level and, as at the last, in the middle."""
    name = "transformer_layers_per_block"
    depth = by_level(values, name, len(wiring.widths), least=0)
    attended = {*wiring.attention_levels, *wiring.attended_up}
    if any(wiring.blocks_at(level) * of_level(depth, level) > LAYERS for level in attended):
        values.refuse(name, values[name], f"at most {LAYERS} on one level are expected")
    return (*depth, depth[-1]) if isinstance(depth, tuple) else depth


def _scaled(values: Values, wiring: Wiring, model: TextUNet) -> tuple[Wiring, TextUNet]:
    """With the scale of guidance beside the time, if the network is told it."""
    if values["time_cond_proj_dim"] is None:
        return wiring, model
    width = values.integer("time_cond_proj_dim")
    if width < 4 or width % 2:
        values.refuse("time_cond_proj_dim", width, "an even number of at least 4 is expected")
    return wiring._replace(scales=1), model.clone(embed_early={"guidance_scale": GuidanceEmbedding(width)})


def _heads(values: Values, widths: tuple[int, ...]) -> Heads:
    """Here `attention_head_dim` is the number of heads, for all levels or for each."""
    name = "attention_head_dim"
    heads = values.integers(name) if type(values[name]) in (list, tuple) else (values.integer(name),) * len(widths)
    width, rest = divmod(widths[0], heads[0])
    if len(set(heads)) == 1 and len(heads) == len(widths):
        return heads_always(heads[0])
    if not rest and [number * width for number in heads] == list(widths):
        return heads_of_width(width)
    return values.refuse(name, heads, "as many heads everywhere, or heads as wide everywhere, are expected")
