"""CLIP of transformers' config.json, as modules of ours, and the names of its weights."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from diffusion_jax.models.encoders import transformer
from diffusion_jax.models.encoders.clip import CLIP, TextTransformer, VisionTransformer, at_first, at_largest
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.layouts import conv, linear
from diffusion_jax.pretrained.published import LAYERS, SIDE, Network, Values, shape
from diffusion_jax.pretrained.wiring import affine, norm, unbiased

VOCABULARY = 2**20  # ids
LONGEST = 2**16  # tokens of a text
# Before 5.6 every class of transformers had a prefix for each half; since then those of one half alone have none.
TEXT, VISION = "text_model.", "vision_model."
# Files of old have a table of 0, 1, 2, ..., which is no weight.
IGNORED = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids", "embeddings.position_ids")
BOTH: dict[str, Any] = {
    "intermediate_size": 2048,
    "num_hidden_layers": 12,
    "num_attention_heads": 8,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "attention_dropout": 0.0,  # of training, as are the two that follow
    "initializer_range": 0.02,
    "initializer_factor": 1.0,
    "projection_dim": 512,
    "pruned_heads": None,
}
TEXTS: dict[str, Any] = BOTH | {
    "vocab_size": 49408,
    "hidden_size": 512,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
    "use_attention_mask": False,
}
PICTURES: dict[str, Any] = BOTH | {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
}
WHOLE: dict[str, Any] = {
    "projection_dim": 512,
    "text_config": None,
    "text_config_dict": None,
    "vision_config": None,
    "vision_config_dict": None,
    "logit_scale_init_value": 2.6592,  # of training, as is the next
    "initializer_factor": 1.0,
    "pruned_heads": None,
}
ACTIVATIONS = {"quick_gelu": transformer.quick_gelu, "gelu": transformer.gelu}
LEGACY_END = 2  # in configs that were written before transformers heard their end: the end is the largest id there
BLOCK = {
    "self_attn.q_proj": "query",
    "self_attn.k_proj": "key",
    "self_attn.v_proj": "value",
    "self_attn.out_proj": "out",
    "mlp.fc1": "mlp_0",
    "mlp.fc2": "mlp_1",
}


def text(config: Mapping[str, Any], weights: Iterable[str] = (), dtype: DTypeLike = np.float32) -> Network:
    """CLIPTextModel.

    Args:
      config: its config.json.
      weights: names of the arrays in its file, which may have a prefix or none; with, where there is no file.
      dtype: of what is computed.

    Raises:
      InputError: a value that this network does not have.
    """
    model, example = _text(Values(config, TEXTS, "CLIPTextModel"), None, dtype)
    prefix = "" if "embeddings.token_embedding.weight" in weights else TEXT
    return Network(model, example, text_names(model, prefix))


def text_with_projection(
    config: Mapping[str, Any], weights: Iterable[str] = (), dtype: DTypeLike = np.float32
) -> Network:
    """CLIPTextModelWithProjection. Arguments and errors as of `text`; its file has the prefix always."""
    values = Values(config, TEXTS, "CLIPTextModelWithProjection")
    model, example = _text(values, values.integer("projection_dim"), dtype)
    return Network(model, example, text_names(model))


def vision(config: Mapping[str, Any], weights: Iterable[str] = (), dtype: DTypeLike = np.float32) -> Network:
    """CLIPVisionModel. Arguments and errors as of `text`."""
    model, example = _vision(Values(config, PICTURES, "CLIPVisionModel"), None, dtype)
    prefix = "" if "embeddings.class_embedding" in weights else VISION
    return Network(model, example, vision_names(model, prefix))


def vision_with_projection(
    config: Mapping[str, Any], weights: Iterable[str] = (), dtype: DTypeLike = np.float32
) -> Network:
    """CLIPVisionModelWithProjection. Arguments and errors as of `text`; its file has the prefix always."""
    values = Values(config, PICTURES, "CLIPVisionModelWithProjection")
    model, example = _vision(values, values.integer("projection_dim"), dtype)
    return Network(model, example, vision_names(model))


def whole(config: Mapping[str, Any], weights: Iterable[str] = (), dtype: DTypeLike = np.float32) -> Network:
    """CLIPModel. Arguments and errors as of `text`; its file has both prefixes always."""
    values = Values(config, WHOLE, "CLIPModel")
    projection = values.integer("projection_dim")
    values.empty("pruned_heads", "only networks that have all heads are read")
    texts = Values(_half(values, "text_config"), TEXTS, "CLIPModel's text_config")
    pictures = Values(_half(values, "vision_config"), PICTURES, "CLIPModel's vision_config")
    of_text, ids = _text(texts, projection, dtype)
    of_vision, images = _vision(pictures, projection, dtype)
    table = [
        *text_names(of_text, ours="text/"),
        *vision_names(of_vision, ours="vision/"),
        Entry("logit_scale", ("log_scale",)),
    ]
    return Network(CLIP(of_text, of_vision), (*ids, *images), table)


def masked(config: Mapping[str, Any]) -> bool:
    """Whether pipelines tell a text encoder which of its ids are text (`use_attention_mask`)."""
    return bool(config.get("use_attention_mask"))


def text_names(model: TextTransformer, theirs: str = TEXT, ours: str = "") -> list[Entry]:
    """The table of a text encoder; `theirs` and `ours` begin the names, but for theirs of the projection."""
    return [
        Entry(f"{theirs}embeddings.token_embedding.weight", (f"{ours}tokens",)),
        Entry(f"{theirs}embeddings.position_embedding.weight", (f"{ours}positions",)),
        *_blocks(model.layers, theirs, ours),
        *norm(f"{theirs}final_layer_norm", f"{ours}norm"),
        *_projection(model.projection, "text_projection", ours),
    ]


def vision_names(model: VisionTransformer, theirs: str = VISION, ours: str = "") -> list[Entry]:
    """The table of an encoder of pictures; arguments as of `text_names`."""
    return [
        Entry(f"{theirs}embeddings.class_embedding", (f"{ours}whole",)),
        Entry(f"{theirs}embeddings.patch_embedding.weight", (f"{ours}patches",), conv),
        Entry(f"{theirs}embeddings.position_embedding.weight", (f"{ours}positions",)),
        *norm(f"{theirs}pre_layrnorm", f"{ours}norm_in"),
        *_blocks(model.layers, theirs, ours),
        *norm(f"{theirs}post_layernorm", f"{ours}norm"),
        *_projection(model.projection, "visual_projection", ours),
    ]


def _blocks(layers: int, theirs: str, ours: str) -> list[Entry]:
    table: list[Entry] = []
    for i in range(layers):
        block, mine = f"{theirs}encoder.layers.{i}", f"{ours}transformer/block_{i}"
        for number in (0, 1):
            table += norm(f"{block}.layer_norm{number + 1}", f"{mine}/norm_{number}")
        for name, part in BLOCK.items():
            table += affine(f"{block}.{name}", f"{mine}/{part}", linear)
    return table


def _projection(features: int | None, theirs: str, ours: str) -> list[Entry]:
    return [] if features is None else unbiased(theirs, f"{ours}projection", linear)


def _half(values: Values, name: str) -> dict[str, Any]:
    """The config of a half. Older files have it twice, and what the second leaves out is as by default."""
    first, second = values[name], values[f"{name}_dict"]
    for key, half in ((name, first), (f"{name}_dict", second)):
        if half is not None and type(half) is not dict:
            values.refuse(key, half, "an object with names is expected")
    found = first or {} if second is None else second
    return found


def _text(values: Values, projection: int | None, dtype: DTypeLike) -> tuple[TextTransformer, tuple]:
    end = values.integer("eos_token_id", least=0, most=VOCABULARY)
    values.only("use_attention_mask", False, True)
    model = TextTransformer(
        vocab=values.integer("vocab_size", most=VOCABULARY),
        positions=values.integer("max_position_embeddings", most=LONGEST),
        pool=at_largest if end == LEGACY_END else at_first(end),
        **_fields(values, projection, dtype),
    )
    return model, (shape(1, 1, dtype=np.int32),)


def _vision(values: Values, projection: int | None, dtype: DTypeLike) -> tuple[VisionTransformer, tuple]:
    side, patch = values.integer("image_size", most=SIDE), values.integer("patch_size", most=SIDE)
    if side % patch:
        values.refuse("patch_size", patch, f"a divisor of image_size = {side} is expected")
    grid = side // patch
    model = VisionTransformer(grid=(grid, grid), patch=patch, **_fields(values, projection, dtype))
    return model, (shape(1, side, side, values.integer("num_channels")),)


def _fields(values: Values, projection: int | None, dtype: DTypeLike) -> dict[str, Any]:
    features, heads = values.integer("hidden_size"), values.integer("num_attention_heads")
    if features % heads:
        values.refuse("num_attention_heads", heads, f"a divisor of hidden_size = {features} is expected")
    for name in ("attention_dropout", "initializer_range", "initializer_factor"):
        values.number(name, 0, 1e6)
    values.empty("pruned_heads", "only networks that have all heads are read")
    return {
        "features": features,
        "hidden": values.integer("intermediate_size"),
        "layers": values.integer("num_hidden_layers", most=LAYERS),
        "heads": heads,
        "projection": projection,
        "activation": ACTIVATIONS[values.only("hidden_act", *ACTIVATIONS)],
        "epsilon": values.number("layer_norm_eps", 0, 1),
        "dtype": np.dtype(dtype).type,
    }
