"""DiT of diffusers' config.json, as a module of ours."""

from collections.abc import Mapping
from typing import Any

from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.models.transformers.dit import DiT
from diffusion_jax.pretrained.families import dit as names
from diffusion_jax.pretrained.published import LAYERS, Network, Values, shape

DIT = {
    "num_attention_heads": 16,
    "attention_head_dim": 72,
    "in_channels": 4,
    "out_channels": None,
    "num_layers": 28,
    "dropout": 0.0,
    "attention_bias": True,
    "sample_size": 32,
    "patch_size": 2,
    "activation_fn": "gelu-approximate",
    "num_embeds_ada_norm": 1000,
    "norm_type": "ada_norm_zero",
    "norm_elementwise_affine": False,
    "norm_eps": 1e-5,
    "norm_num_groups": 32,  # of a normalisation that it does not have
    "upcast_attention": False,  # ours has its softmax in float32 always
}
# The class that DiT's published files name had other defaults, with which it is another network.
TRANSFORMER2D = DIT | {"patch_size": None, "norm_type": "layer_norm", "activation_fn": "geglu"}


def dit(config: Mapping[str, Any]) -> Network:
    """DiTTransformer2DModel, and Transformer2DModel where it is DiT; it is told "label".

    The time is told as in training (`layers.cosinusoid`), from which diffusers departs a little
    (`pretrained.families.dit.diffusers_time`). norm_eps is 1e-6 as in training, whatever the config says.

    Args:
      config: its config.json.

    Raises:
      InputError: a value that DiT does not have.
    """
    name = config.get("_class_name", "DiTTransformer2DModel")
    values = Values(config, TRANSFORMER2D if name == "Transformer2DModel" else DIT, str(name)[:100])
    for fixed in ("attention_bias", "dropout", "activation_fn", "norm_type", "norm_elementwise_affine"):
        values.only(fixed, DIT[fixed])
    values.only("norm_eps", 1e-5, 1e-6)
    values.check_size("sample_size")
    patch, channels, heads = (values.integer(n) for n in ("patch_size", "in_channels", "num_attention_heads"))
    layers = values.integer("num_layers", most=LAYERS)
    model = DiT(
        patch=patch,
        features=heads * values.integer("attention_head_dim"),
        layers=layers,
        heads=heads,
        out_channels=channels if values["out_channels"] is None else values.integer("out_channels"),
        embed={"label": LabelEmbedding(values.integer("num_embeds_ada_norm") + 1)},  # the last: none
    )
    example = shape(1, patch, patch, channels), shape(1), {"label": shape(1, dtype=int)}
    return Network(model, example, names.diffusers(layers))
