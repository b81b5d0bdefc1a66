"""VQ-VAE-2 (Razavi et al. 2019): two levels of codes, the lower one told the upper one."""

import jax
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import laws, moving, objectives
from diffusion_jax.autoencoding.codes import Code
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core import rng
from diffusion_jax.core.protocols import Bottleneck, Coder
from diffusion_jax.methods.autoencoders import looks, surveys, vq_vae
from diffusion_jax.methods.autoencoders.compose import Autoencoding, Tokens, composed, decode_with, init_of
from diffusion_jax.models.autoencoders.vq import VQVAE2
from diffusion_jax.training.experiment import Data

LEVELS = ("bottom", "top")


def default_config() -> Config:
    """Values for the digits: 32 codes at 4x4 positions, and 32 others at 2x2 above them."""
    return with_levels(vq_vae.default_config())


def with_levels(config: Config) -> Config:
    """`config` with the halvings of a second level."""
    config.model.top_halvings = values.count(1, "times that the upper code's sides are halved after that", 12)
    return config


def two_levels(model: VQVAE2, bottom: Bottleneck, top: Bottleneck) -> Coder:
    """The code of both levels: `z` and `kept` are {"top", "bottom"}, and costs and rates add up.

    The upper vectors are quantised first; the lower ones are made of the same features and of the upper code (section
    3.1).
    """

    def call(params, method, *inputs):
        return model.apply({"params": params}, *inputs, method=method)

    def code(params, keys, x):
        h = call(params, "encode_image", x)
        above = top(params, rng.each(keys, 0), laws.certain(call(params, "encode_top", h)))
        below = bottom(params, rng.each(keys, 1), laws.certain(call(params, "encode_bottom", h, above.z)))
        pair = {"top": above, "bottom": below}
        return Code(
            {name: each.z for name, each in pair.items()},
            above.rate + below.rate,
            above.cost + below.cost,
            {name: each.kept for name, each in pair.items()},
            {f"{name}_{what}": value for name, each in pair.items() for what, value in each.info.items()},
        )

    return code


def method(config: ConfigDict, data: Data) -> Autoencoding:
    """A VQ-VAE-2 of `data`, whose codebooks follow moving averages.

    Args:
      config: values, as `default_config` names them.
      data: x0 [H, W, C] in [0, 1] (`images.data`).
    """
    sizes = config.model
    halvings = sizes.halvings, sizes.top_halvings
    model = VQVAE2(data.shape[-1], sizes.dim, halvings, sizes.features, sizes.residual, sizes.blocks)

    def codebook(level):
        return lambda params: params["codebook"][level]

    bottom, top = (
        vq_vae.following(config, data, codebook(level), sum(halvings[: place + 1]))
        for place, level in enumerate(LEVELS)
    )
    code, decode = two_levels(model, bottom, top), decode_with(model, laws.gaussian(sizes.noise))

    def beside(key):
        each = jax.random.split(key, len(LEVELS))
        return {
            "codebook": {name: vq_vae.random_codebook(config, key) for name, key in zip(LEVELS, each, strict=True)}
        }

    def decoded(params, kept):
        return {name: moving.codes(codebook(name)(params))[kept[name]] for name in LEVELS}

    return Autoencoding(
        data,
        init_of(model, data.shape, beside),
        code,
        decode,
        objectives.loss(code, decode),
        looks={"codes": looks.codes(code, sizes.codes, data.view)},
        surveys=(surveys.usage(code, sizes.codes),),
        optimizer=vq_vae.optimizer(config),
        tokens=Tokens(sizes.codes, decoded),
    )


build = composed(method)
