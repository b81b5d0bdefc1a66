"""First stages of diffusers' config.json: AutoencoderKL, VQModel and AutoencoderTiny, as modules of ours."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import linen as nn

from diffusion_jax.autoencoding import latents
from diffusion_jax.autoencoding.latents import Halves, Scaling
from diffusion_jax.core.protocols import DecodeLatents
from diffusion_jax.models.autoencoders.convolutional import ConvolutionalAutoencoder
from diffusion_jax.models.autoencoders.tiny import BOUND, TinyAutoencoder
from diffusion_jax.pretrained.families import first_stage_names as names
from diffusion_jax.pretrained.published import LAYERS, Network, Values, shape

CODES = 2**24  # of a codebook
CONVOLUTIONAL: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",),
    "up_block_types": ("UpDecoderBlock2D",),
    "block_out_channels": (64,),
    "layers_per_block": 1,
    "act_fn": "silu",
    "norm_num_groups": 32,
    "sample_size": 32,
    "mid_block_add_attention": True,
}
KL = CONVOLUTIONAL | {
    "latent_channels": 4,
    "scaling_factor": 0.18215,
    "shift_factor": None,
    "latents_mean": None,
    "latents_std": None,
    "force_upcast": True,  # half of its numbers overflow float16, which ours is never computed in
    "use_quant_conv": True,
    "use_post_quant_conv": True,
}
# The class has the default 0.18215. That is of another model: latents of VQ are not scaled where nothing is said.
VQ = CONVOLUTIONAL | {
    "latent_channels": 3,
    "num_vq_embeddings": 256,
    "vq_embed_dim": None,
    "scaling_factor": 1.0,
    "norm_type": "group",
    "lookup_from_codebook": False,  # of decoding indices, which is asked for in another way here
    "force_upcast": False,
}
TINY: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "encoder_block_out_channels": (64, 64, 64, 64),
    "decoder_block_out_channels": (64, 64, 64, 64),
    "block_out_channels": None,
    "act_fn": "relu",
    "upsample_fn": "nearest",
    "latent_channels": 4,
    "upsampling_scaling_factor": 2,
    "num_encoder_blocks": (1, 3, 3, 3),
    "num_decoder_blocks": (3, 3, 3, 1),
    "latent_magnitude": 3,  # of rounding latents to bytes
    "latent_shift": 0.5,
    "force_upcast": False,
    "scaling_factor": 1.0,
    "shift_factor": 0.0,
}
# Whether a level has attention.
DOWN = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}
UP = {"UpDecoderBlock2D": False, "AttnUpDecoderBlock2D": True}


class Described(NamedTuple):
    """A first stage as its config says it.

    Attributes:
      network: the module, and the table of its weights.
      halves: `(module, decode=None) -> how it encodes and decodes`, by `decode` in place of the module's own.
      scaling: its latents as diffusion models take them.
    """

    network: Network
    halves: Callable[..., Halves]
    scaling: Scaling


def kl(config: Mapping[str, Any], weights: Iterable[str] = ()) -> Described:
    """AutoencoderKL, as Stable Diffusion's of all kinds, DiT's and Flux's.

    Args:
      config: its config.json.
      weights: names of the arrays in its file, which show how it names its parts.

    Raises:
      InputError: a value that this network does not have.
    """
    values = Values(config, KL, "AutoencoderKL")
    latent = values.integer("latent_channels")
    projected = values.only("use_quant_conv", False, True)
    values.only("use_post_quant_conv", projected)
    model = ConvolutionalAutoencoder(latent=latent, dim=latent if projected else None, **_fields(values))
    values.only("force_upcast", False, True)
    table = names.convolutional(model, names.of(weights))
    return Described(Network(model, _example(values, model), table), latents.drawn, _scaling(values, latent))


def vq(config: Mapping[str, Any], weights: Iterable[str] = ()) -> Described:
    """VQModel, as latent diffusion's and VQGAN; its parameters have the codes [K, d] beside, as "codebook".

    Its latents are unscaled unless the config says by what they are scaled. Arguments and errors as of `kl`.
    """
    values = Values(config, VQ, "VQModel")
    latent = values.integer("latent_channels")
    dim = latent if values["vq_embed_dim"] is None else values.integer("vq_embed_dim")
    values.only("norm_type", "group")
    for name in ("lookup_from_codebook", "force_upcast"):
        values.only(name, False, True)
    model = ConvolutionalAutoencoder(latent=latent, says=1, dim=dim, **_fields(values))
    codes = shape(values.integer("num_vq_embeddings", most=CODES), dim)
    table = [*names.convolutional(model, names.of(weights)), *names.codebook()]
    network = Network(model, _example(values, model), table, {"codebook": codes})
    return Described(network, _quantised, Scaling(_scale(values)))


def tiny(config: Mapping[str, Any]) -> Described:
    """AutoencoderTiny, TAESD, whose latents are those of another first stage, scaled. Errors as of `kl`."""
    values = Values(config, TINY, "AutoencoderTiny")
    widths, blocks = {}, {}
    for half in ("encoder", "decoder"):
        widths[half] = values.integers(f"{half}_block_out_channels")
        blocks[half] = values.integers(f"num_{half}_blocks", LAYERS)
        if len(widths[half]) != len(blocks[half]):
            values.refuse(
                f"num_{half}_blocks", blocks[half], f"one for each of {half}_block_out_channels is expected"
            )
    if len(set(widths["encoder"] + widths["decoder"])) > 1 or len(widths["encoder"]) != len(widths["decoder"]):
        both = widths["encoder"], widths["decoder"]
        values.refuse("block_out_channels", both, "levels that are all as wide, as many of both halves, are expected")
    if values["block_out_channels"] is not None and values.integers("block_out_channels") != widths["decoder"]:
        values.refuse("block_out_channels", values["block_out_channels"], "that of the decoder is expected")
    for name, value in (("act_fn", "relu"), ("upsample_fn", "nearest"), ("upsampling_scaling_factor", 2)):
        values.only(name, value)
    values.only("force_upcast", False, True)
    values.only("latent_magnitude", BOUND)
    values.only("latent_shift", 0.5)
    model = TinyAutoencoder(
        channels=_channels(values),
        latent=values.integer("latent_channels"),
        width=widths["encoder"][0],
        encoder_blocks=blocks["encoder"],
        decoder_blocks=blocks["decoder"],
    )
    side = 2 ** (len(blocks["encoder"]) - 1)
    network = Network(model, (shape(1, side, side, model.channels),), names.tiny(model))
    shift = 0.0 if values["shift_factor"] is None else values.number("shift_factor", -1e6, 1e6)
    return Described(network, latents.certain, Scaling(_scale(values), shift))


# ---- What they have in common.


def _quantised(model: nn.Module, decode: DecodeLatents | None = None) -> Halves:
    return latents.quantised(model, lambda params: params["codebook"], decode)


def _fields(values: Values) -> dict[str, Any]:
    """Fields of `ConvolutionalAutoencoder`."""
    widths, groups = values.integers("block_out_channels"), values.integer("norm_num_groups")
    if any(width % groups for width in widths):
        values.refuse("norm_num_groups", groups, f"a divisor of all of block_out_channels = {widths} is expected")
    levels = _attended(values, "down_block_types", DOWN, len(widths))
    if _attended(values, "up_block_types", UP, len(widths))[::-1] != levels:
        values.refuse(
            "up_block_types", values["up_block_types"], "attention on the levels that have it on the way down"
        )
    values.only("act_fn", "silu", "swish")
    values.check_size("sample_size")
    return {
        "channels": _channels(values),
        "widths": widths,
        "blocks": values.integer("layers_per_block", most=LAYERS),
        "attention_levels": tuple(level for level, attends in enumerate(levels) if attends),
        "middle_attention": values.only("mid_block_add_attention", False, True),
        "groups": groups,
    }


def _attended(values: Values, name: str, kinds: Mapping[str, bool], levels: int) -> list[bool]:
    found = values[name]
    if type(found) not in (list, tuple) or len(found) != levels or not set(map(str, found)) <= set(kinds):
        values.refuse(name, found, f"one of {', '.join(kinds)} for each of block_out_channels is expected")
    return [kinds[block] for block in found]


def _channels(values: Values) -> int:
    channels = values.integer("in_channels")
    return values.only("out_channels", channels)


def _example(values: Values, model: ConvolutionalAutoencoder) -> tuple:
    side = 2 ** (len(model.widths) - 1)
    return (shape(1, side, side, values.integer("in_channels")),)


def _scale(values: Values) -> float:
    return values.number("scaling_factor", 1e-6, 1e6)


def _scaling(values: Values, channels: int) -> Scaling:
    """By one number, or each channel by its own mean and standard deviation."""
    mean, std = values["latents_mean"], values["latents_std"]
    if mean is None and std is None:
        shift = values["shift_factor"]
        return Scaling(_scale(values), 0.0 if shift is None else values.number("shift_factor", -1e6, 1e6))
    values.only("shift_factor", None)
    means = np.array(values.numbers("latents_mean", channels, -1e6, 1e6), np.float32)
    stds = np.array(values.numbers("latents_std", channels, 1e-6, 1e6), np.float32)
    return Scaling(np.float32(_scale(values)) / stds, means)
