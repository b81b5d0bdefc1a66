"""Networks of diffusers' config.json: UNet2DModel, UNet2DConditionModel and ControlNetModel, as modules of ours."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.protocols import Heads
from diffusion_jax.models.blocks.conditioning import GuidanceEmbedding, LabelEmbedding
from diffusion_jax.models.blocks.layers import SAME, cosinusoid, sinusoid
from diffusion_jax.models.blocks.time_table import TimeTable
from diffusion_jax.models.unets.adm import AdditiveUNet, ADMUNet, ImprovedUNet, heads_always, heads_of_width
from diffusion_jax.models.unets.controlnet import ControlNet, HintEncoder
from diffusion_jax.models.unets.open import FourierUNet, OpenUNet
from diffusion_jax.models.unets.skeleton import Skeleton
from diffusion_jax.models.unets.text_unet import TextUNet
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.families import diffusers_names as names
from diffusion_jax.pretrained.layouts import linear, pointwise
from diffusion_jax.pretrained.published import LARGEST, LAYERS, Network, Values, shape
from diffusion_jax.pretrained.wiring import Wiring

SHARED = {
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "class_embed_type": None,
    "num_class_embeds": None,
    "sample_size": None,
}
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
CROSS = "UNetMidBlock2DCrossAttn"
CONDITIONED = SHARED | {
    "in_channels": 4,
    "out_channels": 4,
    "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
    "mid_block_type": CROSS,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 1280,
    "transformer_layers_per_block": 1,
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

ACTIVATIONS = {
    "silu": nn.swish,
    "swish": nn.swish,
    "mish": lambda x: x * jnp.tanh(nn.softplus(x)),
    "gelu": partial(nn.gelu, approximate=False),
    "relu": nn.relu,
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
READING = {
    "DownBlock2D": (False, "conv"),
    "UpBlock2D": (False, "conv"),
    "CrossAttnDownBlock2D": (True, "conv"),
    "CrossAttnUpBlock2D": (True, "conv"),
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


def unet2d_condition(config: Mapping[str, Any]) -> Network:
    """UNet2DConditionModel as Stable Diffusion 1 and 2 have it; it is told "tokens", and "label" if it has labels.

    Latent consistency models are told the "guidance_scale" too. Arguments and errors as of `unet2d`.
    """
    values = Values(config, UNET2D_CONDITION, "UNet2DConditionModel")
    wiring, model, attention = _reading(values, ("down_block_types", "up_block_types"), CROSS, None)
    for name, value in (("conv_in_kernel", 3), ("conv_out_kernel", 3), ("attention_type", "default")):
        values.only(name, value)
    values.number("resnet_out_scale_factor", -1e6, 1e6)  # of kinds of blocks that are not among these
    wiring, model = _scaled(values, wiring, model)
    table = names.unet(wiring, attention, names.convolution)
    return Network(model, example_of(values, wiring, tokens=_tokens(values, wiring)), table)


def controlnet(config: Mapping[str, Any]) -> Network:
    """ControlNetModel for Stable Diffusion 1 and 2; it is told "tokens" and "hint", and gives residuals.

    Arguments and errors as of `unet2d`.
    """
    values = Values(config, CONTROLNET, "ControlNetModel")
    wiring, unet, attention = _reading(values, ("down_block_types",), CROSS)
    values.only("controlnet_conditioning_channel_order", "rgb")
    widths = values.integers("conditioning_embedding_out_channels")
    table = names.controlnet(wiring, attention, len(widths))
    side = 2 ** (wiring.levels[-1] + len(widths) - 1)
    hint = shape(1, side, side, values.integer("conditioning_channels"))
    example = example_of(values, wiring, tokens=_tokens(values, wiring), hint=hint)
    return Network(ControlNet(unet, HintEncoder(widths)), example, table)


# ---- What the three have in common.


def wiring_of(values: Values, kinds: Mapping, blocks: Iterable[str]) -> tuple[Wiring, str]:
    """The wiring, and what stands between its levels: "conv" or "resnet"."""
    widths = values.integers("block_out_channels")
    last, levels, between = len(widths) - 1, [], set()
    for name in blocks:
        found = values[name]
        if type(found) not in (list, tuple) or len(found) != len(widths) or not set(map(str, found)) <= set(kinds):
            values.refuse(name, found, f"one of {', '.join(kinds)} for each of block_out_channels is expected")
        way = "down" if name == "down_block_types" else "up"
        for level, block in enumerate(found if way == "down" else found[::-1]):
            attends, resampling = kinds[block]
            if attends:
                levels.append((way, level))
            if level != (last if way == "down" else 0):
                between.add(resampling or values.only(f"{way}sample_type", "conv", "resnet"))
    down, up = (tuple(sorted(level for way, level in levels if way == one)) for one in ("down", "up"))
    if len(between) > 1:
        values.refuse("downsample_type", values["downsample_type"], "the same between all levels is expected")
    values.only("center_input_sample", False)
    values.only("time_embedding_dim", None, 4 * widths[0])
    values.only("class_embed_type", None)
    values.check_size("sample_size")
    labels = int(values["num_class_embeds"] is not None)
    wiring = Wiring(widths, _equal(values, "layers_per_block", len(widths), LAYERS), down, labels)
    if "up_block_types" in blocks and up != down:
        wiring = wiring._replace(up_attention_levels=up)
    return wiring, between.pop() if between else "conv"


def fields_of(values: Values, wiring: Wiring) -> dict[str, Any]:
    """Fields of `Skeleton`."""
    return {
        "channels": wiring.widths[0],
        "multipliers": tuple(width / wiring.widths[0] for width in wiring.widths),
        "blocks": wiring.blocks,
        "attention_levels": wiring.attention_levels,
        "up_attention_levels": wiring.up_attention_levels,
        "middle_attention": wiring.middle_attention,
        "middle": wiring.middle,
        "middle_scale": values.number("mid_block_scale_factor", 1e-6, 1e6),
        "activation": ACTIVATIONS[values.only("act_fn", *ACTIVATIONS)],
        "out_channels": values.integer("out_channels"),
        "dropout": values.number("dropout", 0.0, 1.0),
        "groups": values.integer("norm_num_groups"),
        "embed": {"label": LabelEmbedding(values.integer("num_class_embeds"))} if wiring.labels else {},
    }


def _plain(values: Values, between: str, heads: Heads, fields: Mapping) -> Skeleton:
    if fields["middle"] and fields["middle_attention"]:
        # Without groups of its own, it has those of all.
        values.only("attn_norm_num_groups", None, values["norm_num_groups"])
    if between == "resnet":
        _as_openai(values)
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
    _as_openai(values)
    if between == "conv":
        values.only("downsample_padding", 1)
    return {"conv": ImprovedUNet, "resnet": ADMUNet}[between](heads=heads, **fields)


def _as_openai(values: Values) -> None:
    values.only("time_embedding_type", "positional")
    values.only("flip_sin_to_cos", True)
    values.only("freq_shift", 0)
    values.only("norm_eps", 1e-5)


def _reading(values: Values, blocks: Iterable[str], *middles: str | None) -> tuple[Wiring, TextUNet, names.Part]:
    """The wiring, the module and the names of its attention; `middles` are what `mid_block_type` may be."""
    wiring, _ = wiring_of(values, READING, blocks)
    values.only("mid_block_scale_factor", 1)  # another would not be that of the middle's attention
    _as_openai(values)
    wiring = wiring._replace(middle=values.only("mid_block_type", *middles) is not None)
    values.only("resnet_time_scale_shift", "default")
    values.only("only_cross_attention", False)
    values.only("downsample_padding", 1)
    depth = _equal(values, "transformer_layers_per_block", len(wiring.widths), LAYERS)
    if wiring.blocks * depth > LAYERS:
        values.refuse("transformer_layers_per_block", depth, f"at most {LAYERS} on one level are expected")
    project = linear if values.only("use_linear_projection", False, True) else pointwise
    model = TextUNet(heads=_heads(values, wiring.widths), depth=depth, **fields_of(values, wiring))
    return wiring, model, names.transformer(depth, project)


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


def _equal(values: Values, name: str, count: int, most: int = LARGEST) -> int:
    """An integer in [1, most], or a list of `count` that are equal."""
    if type(values[name]) not in (list, tuple):
        return values.integer(name, most=most)
    listed = values.integers(name, most)
    if len(listed) != count or len(set(listed)) != 1:
        values.refuse(name, listed, "the same for every level is expected")
    return listed[0]


def _tokens(values: Values, wiring: Wiring):
    return shape(1, 1, _equal(values, "cross_attention_dim", len(wiring.widths)))


def example_of(values: Values, wiring: Wiring, **cond) -> tuple:
    side = 2 ** wiring.levels[-1]
    label = {"label": shape(1, dtype=int)} if wiring.labels else {}
    scale = {"guidance_scale": shape(1)} if wiring.scales else {}
    return shape(1, side, side, values.integer("in_channels")), shape(1), (label | scale | cond) or None
