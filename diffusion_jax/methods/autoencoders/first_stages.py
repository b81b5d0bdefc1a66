"""The networks of first stages, by the values of configs."""

from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import base_config, with_dir, without_chain
from diffusion_jax.methods.pixels import FACTOR, computing
from diffusion_jax.models.autoencoders.convolutional import ConvolutionalAutoencoder
from diffusion_jax.training.experiment import Data


def config_256() -> Config:
    """What the published ones of 256x256 have in common, but for their networks (Rombach et al. 2022's code).

    The learning rate is 4.5e-6 times the examples of an update, and there is neither a warm-up nor clipping.
    """
    config = with_dir(pixels.with_shape(without_chain(base_config()), (256, 256, 3)))
    config.data.flip = values.flag(True, "whether training images are mirrored at random")
    config.data.threads = 16
    config.train.batch_size = 24
    config.train.steps = 250_000
    config.train.learning_rate = 4.5e-6 * 24
    config.train.warmup_steps = 0
    config.train.clip_norm = 0.0
    config.log.samples = 16
    return config


def sizes(channels: int = 128, multipliers: tuple[int, ...] = (1, 2, 4, 4), latent: int = 4) -> Config:
    """Values of `kl`; by default those of Stable Diffusion's first stage, KL-f8."""
    return Config(
        channels=values.count(channels, "features of the first level, where its multiplier is 1", 16_384),
        multipliers=values.listed(multipliers, "features of each level, as multiples of channels", FACTOR, 1, 12),
        blocks=values.count(2, "residual blocks of a level of the encoder", 64),
        attention_levels=values.listed((), "levels with attention, from 0", values.Whole(0, 11), most=12),
        middle_attention=values.flag(True, "whether the middle has attention"),
        groups=values.count(32, "groups of every group normalisation", 16_384),
        latent=values.count(latent, "channels of the latents", 16_384),
        **computing(),  # type: ignore[arg-type]  # ConfigDict's own keywords come first
    )


def sizes_vq(
    channels: int = 128, multipliers: tuple[int, ...] = (1, 2, 4), latent: int = 3, codes: int = 8192
) -> Config:
    """Values of `vq`; by default those of latent diffusion's VQ-f4."""
    config = sizes(channels, multipliers, latent)
    config.dim = values.count(latent, "numbers of a code's vector", 16_384)
    config.codes = values.count(codes, "vectors of the codebook", 2**24)
    return config


def kl(model: ConfigDict, data: Data) -> ConvolutionalAutoencoder:
    """The network whose latents are drawn; `model` has the values of `sizes`, and `data` images in [-1, 1]."""
    return _network(model, data, says=2, dim=model.latent)


def vq(model: ConfigDict, data: Data) -> ConvolutionalAutoencoder:
    """The network whose latents are quantised; `model` has the values of `sizes_vq`, and `data` images in [-1, 1]."""
    return _network(model, data, says=1, dim=model.dim)


def _network(model: ConfigDict, data: Data, says: int, dim: int) -> ConvolutionalAutoencoder:
    return ConvolutionalAutoencoder(
        channels=data.shape[-1],
        latent=model.latent,
        says=says,
        dim=dim,
        widths=tuple(model.channels * multiplier for multiplier in model.multipliers),
        blocks=model.blocks,
        attention_levels=tuple(model.attention_levels),
        middle_attention=model.middle_attention,
        groups=model.groups,
        **pixels.computed(model),
    )
