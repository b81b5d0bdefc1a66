"""What the configs of diffusers' U-Nets have in common: values, activations, wiring, the fields of a `Skeleton`."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from diffusion_jax.core.protocols import Activation
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.pretrained.published import LARGEST, LAYERS, Values, shape
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
ACTIVATIONS: dict[str, Activation] = {
    "silu": nn.swish,
    "swish": nn.swish,
    "mish": lambda x: x * jnp.tanh(nn.softplus(x)),
    "gelu": partial(nn.gelu, approximate=False),
    "relu": nn.relu,
}


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
    values.check_size("sample_size")
    labels = int(values["num_class_embeds"] is not None)
    wiring = Wiring(widths, by_level(values, "layers_per_block", len(widths)), down, labels)
    if "up_block_types" in blocks and up != down:
        wiring = wiring._replace(up_attention_levels=up)
    return wiring, between.pop() if between else "conv"


def activation_of(values: Values) -> Activation:
    """`act_fn`."""
    return ACTIVATIONS[values.only("act_fn", *ACTIVATIONS)]


def fields_of(values: Values, wiring: Wiring) -> dict[str, Any]:
    """Fields of `Skeleton`."""
    width = embedding_width(values, wiring)
    return {
        "channels": wiring.widths[0],
        "multipliers": tuple(width / wiring.widths[0] for width in wiring.widths),
        "blocks": wiring.blocks,
        "attention_levels": wiring.attention_levels,
        "up_attention_levels": wiring.up_attention_levels,
        "middle_attention": wiring.middle_attention,
        "middle": wiring.middle,
        "embedding_features": None if width == 4 * wiring.widths[0] else width,
        "middle_scale": values.number("mid_block_scale_factor", 1e-6, 1e6),
        "activation": activation_of(values),
        "out_channels": values.integer("out_channels"),
        "dropout": values.number("dropout", 0.0, 1.0),
        "groups": values.integer("norm_num_groups"),
        "embed": {"label": LabelEmbedding(values.integer("num_class_embeds"))} if wiring.labels else {},
    }


def embedding_width(values: Values, wiring: Wiring) -> int:
    """Features of the time's embedding."""
    return 4 * wiring.widths[0] if values["time_embedding_dim"] is None else values.integer("time_embedding_dim")


def as_openai(values: Values) -> None:
    values.only("time_embedding_type", "positional")
    values.only("flip_sin_to_cos", True)
    values.only("freq_shift", 0)
    values.only("norm_eps", 1e-5)


def told_only_time(values: Values, wiring: Wiring) -> None:
    """Refuse what UNet2DModel has, of times, classes and blocks, and networks here have not."""
    values.only("time_embedding_dim", None, 4 * wiring.widths[0])
    values.only("class_embed_type", None)
    equal(values, "layers_per_block", len(wiring.widths))


def by_level(values: Values, name: str, count: int, least: int = 1) -> int | tuple[int, ...]:
    """An integer in [least, `LAYERS`], or a list of `count` of them; one integer where they are equal."""
    if type(values[name]) not in (list, tuple):
        return values.integer(name, least, LAYERS)
    listed = values.integers(name, LAYERS, least)
    if len(listed) != count:
        values.refuse(name, listed, f"{count} are expected, one for each of block_out_channels")
    return listed if len(set(listed)) > 1 else listed[0]


def only_crossing(values: Values, count: int) -> tuple[int, ...]:
    """Levels where pixels attend to the text alone, of `only_cross_attention`, a boolean or `count` of them."""
    found = values["only_cross_attention"]
    listed = found if type(found) in (list, tuple) else [found] * count
    if len(listed) != count or not all(type(one) is bool for one in listed):
        values.refuse("only_cross_attention", found, f"False or True, or {count} of these, are expected")
    return tuple(level for level, only in enumerate(listed) if only)


def equal(values: Values, name: str, count: int, most: int = LARGEST) -> int:
    """An integer in [1, most], or a list of `count` that are equal."""
    if type(values[name]) not in (list, tuple):
        return values.integer(name, most=most)
    listed = values.integers(name, most)
    if len(listed) != count or len(set(listed)) != 1:
        values.refuse(name, listed, "the same for every level is expected")
    return listed[0]


def example_of(values: Values, wiring: Wiring, **cond) -> tuple:
    side = 2 ** wiring.levels[-1]
    label = {"label": shape(1, dtype=int)} if wiring.labels else {}
    scale = {"guidance_scale": shape(1)} if wiring.scales else {}
    return shape(1, side, side, values.integer("in_channels")), shape(1), (label | scale | cond) or None
