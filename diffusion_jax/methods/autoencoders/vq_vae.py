"""VQ-VAE (van den Oord et al. 2017): the code is a small image of indices, each of one of K learned vectors."""

import jax
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import laws, moving, objectives, quantizers
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.autoencoding.moving import OfCodebook
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Bottleneck, Pass
from diffusion_jax.methods.autoencoders import images, looks, surveys
from diffusion_jax.methods.autoencoders.compose import (
    Autoencoding,
    Tokens,
    composed,
    decode_with,
    encode_with,
    init_of,
)
from diffusion_jax.models.autoencoders.vq import VQVAE
from diffusion_jax.training import codebooks
from diffusion_jax.training.experiment import Data
from diffusion_jax.training.optimizers import MakeOptimizer, adam, by_part


def default_config() -> Config:
    """Values for the digits: 32 codes at 4x4 positions."""
    return with_codebook(config_digits())


def config_digits() -> Config:
    """Values for the digits and a network of one halving, of whatever bottleneck."""
    config = with_network(images.config_digits())
    config.model.update(halvings=1, features=32, dim=8)
    config.train.steps = 1500
    config.train.warmup_steps = 0
    config.train.clip_norm = 0.0
    config.log.sample_every = 500
    return config


def with_network(config: Config) -> Config:
    """`config` with the sizes of the authors' networks, and what an error costs."""
    config.model = Config(
        halvings=values.count(2, "times that the code's sides are halved", 12),
        features=values.count(128, "features of the convolutions", 16_384, least=2),
        residual=values.count(32, "features inside residual blocks", 16_384),
        blocks=values.count(2, "residual blocks", 64, zero="none"),
        dim=values.count(64, "numbers of a code's vector", 16_384),
        noise=values.number(0.01, "variance of an entry given its code", 1e-9, 1e9),
    )
    return config


def with_codebook(config: Config, size: int = 32) -> Config:
    """`config` with the values of a codebook that follows moving averages."""
    config.model.codes = values.count(size, "vectors of the codebook", 2**24)
    config.model.beta = values.number(
        0.25, "weight of the mean squared commitment, beside the mean squared error", 0, 1e6
    )
    config.model.decay = values.share(0.99, "decay of the codebook's moving averages", below=True)
    config.model.revived_below = values.share(
        0.5, "vectors of a batch below which a code is put elsewhere; 0: none is", below=True
    )
    return config


def method(config: ConfigDict, data: Data, passing: Pass = quantizers.straight_through) -> Autoencoding:
    """A VQ-VAE of `data`, whose codebook follows moving averages (appendix A.1).

    Args:
      config: values, as `default_config` names them.
      data: x0 [H, W, C] in [0, 1] (`images.data`).
      passing: how the decoder's gradient reaches the encoder: `quantizers.rotated` is the rotation trick.
    """

    def codebook(params):
        return params["codebook"]

    model = network(config, data, config.model.dim)
    bottleneck = following(config, data, codebook, config.model.halvings, passing)
    decoded = quantizers.looked_up(lambda params: moving.codes(codebook(params)))
    found = discrete(config, data, model, bottleneck, Tokens(config.model.codes, decoded))
    return found._replace(
        init=init_of(model, data.shape, lambda key: {"codebook": random_codebook(config, key)}),
        optimizer=optimizer(config),
    )


def network(config: ConfigDict, data: Data, dim: int) -> VQVAE:
    """The network of `config.model`, of images as `data` has them."""
    sizes = config.model
    return VQVAE(data.shape[-1], dim, sizes.halvings, sizes.features, sizes.residual, sizes.blocks)


def discrete(config: ConfigDict, data: Data, model: VQVAE, bottleneck: Bottleneck, tokens: Tokens) -> Autoencoding:
    """An autoencoder whose bottleneck keeps indices, by squared error and Adam."""
    decode = decode_with(model, laws.gaussian(config.model.noise))
    code = coder(encode_with(model, laws.certain), bottleneck)
    return Autoencoding(
        data,
        init_of(model, data.shape),
        code,
        decode,
        objectives.loss(code, decode),
        looks={"codes": looks.codes(code, tokens.vocab, data.view)},
        surveys=(surveys.usage(code, tokens.vocab),),
        tokens=tokens,
    )


def following(
    config: ConfigDict, data: Data, codebook: OfCodebook, halvings: int, passing: Pass = quantizers.straight_through
) -> Bottleneck:
    """The nearest code of a codebook of moving averages, of vectors after `halvings` of the image.

    The commitment is weighed as in a loss of two means, of the squared errors of pixels and of vectors.
    """
    height, width, channels = data.shape
    side = 2**halvings
    if height % side or width % side:
        raise InputError(
            f"{height}x{width} cannot be halved {halvings} times; take less --config.model.halvings, or sides that "
            f"{side} divides"
        )
    entries = (height // side) * (width // side) * config.model.dim
    means = height * width * channels / (2 * config.model.noise)  # what a mean squared error is times, in nats
    return quantizers.vector_quantized(
        lambda params: moving.codes(codebook(params)),
        config.model.beta * means / entries,
        moving.by_average(codebook, config.train.batch_size),
        passing,
    )


def random_codebook(config: ConfigDict, key: jax.Array) -> dict[str, jax.Array]:
    """Normal codes; those that are nowhere near the encoder's vectors are revived among them."""
    return moving.start(jax.random.normal(key, (config.model.codes, config.model.dim)))


def optimizer(config: ConfigDict) -> MakeOptimizer:
    """Adam of the network, and the moving averages of "codebook"."""
    return by_part(adam, codebook=codebooks.followed(config.model.decay, config.model.revived_below))


build = composed(method)
