"""First stages in files without a config: latent diffusion's checkpoints, and what was made of them.

What a file does not say is derived from the names and shapes of its arrays; the rest is as in all of its models.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from diffusion_jax.autoencoding.latents import Scaling
from diffusion_jax.core.errors import InputError
from diffusion_jax.models.autoencoders.convolutional import ConvolutionalAutoencoder
from diffusion_jax.pretrained.families import first_stage_names as names
from diffusion_jax.pretrained.published import LAYERS, LEVELS

GROUPS = 32  # in all of latent diffusion's networks
PREFIX = "first_stage_model."
SCALE = "scale_factor"  # by what a whole model scales latents, where it found that itself
# What else is in files: a whole model's other networks, averages, a training's judge, and the tables of a schedule.
OTHERS = ("model.", "model_ema.", "cond_stage_model.", "conditioner.", "denoiser.", "loss.")
TABLES = frozenset(
    (
        *("betas", "alphas_cumprod", "alphas_cumprod_prev", "sqrt_alphas_cumprod", "sqrt_one_minus_alphas_cumprod"),
        *("log_one_minus_alphas_cumprod", "sqrt_recip_alphas_cumprod", "sqrt_recipm1_alphas_cumprod"),
        *("posterior_variance", "posterior_log_variance_clipped", "posterior_mean_coef1", "posterior_mean_coef2"),
        *("lvlb_weights", "logvar", SCALE),
    )
)


def own(weights: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of a first stage, by its own names, among those of a file that may hold a whole model.

    Nothing is left out but what is known to be of something else (`OTHERS`, `TABLES`).
    """
    kept = {n: a for n, a in weights.items() if not n.startswith(OTHERS) and n not in TABLES}
    if not any(name.startswith(PREFIX) for name in kept):
        return kept
    inside = {name.removeprefix(PREFIX): array for name, array in kept.items()}
    return {name: array for name, array in inside.items() if not name.startswith(OTHERS)}


def scale_in(weights: Mapping[str, Any]) -> float | None:
    """By what a whole model's file says that it scales latents; None where it does not."""
    array = weights.get(SCALE)
    if array is None:
        return None
    if tuple(array.shape) not in ((), (1,)):
        raise InputError(f"{SCALE} has the shape {tuple(array.shape)}, and is one number; get the file again")
    scale = float(np.asarray(array).reshape(()))
    if not 0 < scale < np.inf:
        raise InputError(f"{SCALE} = {scale:g} scales no latents; get the file again")
    return scale


def config_in(weights: Mapping[str, Any], what: str) -> dict[str, Any]:
    """A config.json of diffusers for a first stage's own arrays, without a scale.

    Raises:
      InputError: they are not those of AutoencoderKL or VQModel; what is missing is named.
    """
    naming = names.of(weights)
    shapes = {name: tuple(array.shape) for name, array in weights.items()}

    def features(name: str, axis: int = 0) -> int:
        found = shapes.get(f"{name}.weight", ())
        if len(found) <= axis:
            raise InputError(f"{what} has no first stage that is known: {name}.weight is missing; give its folder")
        return found[axis]

    levels = _count(f"encoder.{naming.down}.", shapes, LEVELS)
    block = f"{naming.down}.{naming.block}"
    widths = [features(f"encoder.{block.format(level, 0)}.conv1") for level in range(levels)]
    attends = f"encoder.{naming.down}.{naming.attention.format(0)}."
    attended = tuple(n for n in range(levels) if any(name.startswith(attends.format(n)) for name in shapes))
    quantised, projected = names.CODEBOOK in shapes, "quant_conv.weight" in shapes
    if any(width % GROUPS for width in widths):
        raise InputError(f"{what} does not say its groups of {widths} features; put its config.json beside it")
    latent = features("decoder.conv_in", 1)
    model = ConvolutionalAutoencoder(
        channels=features("encoder.conv_in", 1),
        latent=latent,
        says=1 if quantised else 2,
        dim=features("post_quant_conv", 1) if quantised or projected else None,
        widths=tuple(widths),
        blocks=_count(f"encoder.{naming.down.format(0)}.{naming.block}.", shapes, LAYERS),
        attention_levels=attended,
        middle_attention=any(name.startswith(f"encoder.{naming.middle[1]}.") for name in shapes),
        groups=GROUPS,
    )
    return config_of(model, codes=shapes[names.CODEBOOK][0] if quantised else None)


def config_of(model: ConvolutionalAutoencoder, scaling: Scaling | None = None, codes: int | None = None) -> dict:
    """The config.json of diffusers for a module, the inverse of `first_stages.kl` and `vq`.

    Args:
      model: the module.
      scaling: of its latents; None says nothing of it.
      codes: entries of its codebook; None for AutoencoderKL.

    Raises:
      InputError: diffusers has no such network.
    """
    levels = range(len(model.widths))
    attended = [level in model.attention_levels for level in levels]
    config: dict[str, Any] = {
        "_class_name": "AutoencoderKL" if codes is None else "VQModel",
        "in_channels": model.channels,
        "out_channels": model.channels,
        "down_block_types": ["AttnDownEncoderBlock2D" if attends else "DownEncoderBlock2D" for attends in attended],
        "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attended)],
        "block_out_channels": list(model.widths),
        "layers_per_block": model.blocks,
        "act_fn": "silu",
        "latent_channels": model.latent,
        "norm_num_groups": model.groups,
        "mid_block_add_attention": model.middle_attention,
    }
    if codes is not None:
        config |= {"num_vq_embeddings": codes, "vq_embed_dim": model.dim, "norm_type": "group"}
    elif model.dim not in (None, model.latent):
        raise InputError(f"AutoencoderKL has codes of as many channels as its decoder, not {model.dim}")
    else:
        config |= {"use_quant_conv": model.dim is not None, "use_post_quant_conv": model.dim is not None}
    return config | (_said(scaling, codes is not None) if scaling is not None else {})


def _said(scaling: Scaling, quantised: bool) -> dict[str, Any]:
    scale, shift = (np.asarray(part, np.float64) for part in scaling)
    if scale.ndim == shift.ndim == 0:
        if quantised and shift:
            raise InputError("latents of diffusers' VQModel are not shifted")
        return {"scaling_factor": float(scale)} | ({"shift_factor": float(shift)} if not quantised else {})
    if quantised:
        raise InputError("latents of diffusers' VQModel are scaled by one number")
    means, stds = (array.tolist() for array in np.broadcast_arrays(shift, 1 / scale))
    return {"scaling_factor": 1.0, "latents_mean": means, "latents_std": stds}


def _count(pattern: str, found: Mapping[str, Any], most: int) -> int:
    """How many numbers stand in `pattern`, from 0 on."""
    numbers = {m[1] for name in found if (m := re.match(re.escape(pattern).replace(r"\{\}", r"(\d{1,4})"), name))}
    return next(n for n in range(most + 1) if str(n) not in numbers or n == most)
