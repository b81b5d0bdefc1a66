"""Vector-quantised first stages of latent diffusion (Rombach et al. 2022, section 3.1; VQGAN, Esser et al. 2021)."""

import math

import jax
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import bottlenecks, distortions, latents, objectives, quantizers
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core import rng
from diffusion_jax.core.protocols import ReadData
from diffusion_jax.methods.autoencoders import adversarial, first_stages, images, looks, surveys
from diffusion_jax.methods.autoencoders.adversarial import Judgement
from diffusion_jax.methods.autoencoders.compose import Autoencoding, Tokens, composed, init_of
from diffusion_jax.methods.autoencoders.first_stage_kl import ABSOLUTE
from diffusion_jax.training.experiment import Data


def default_config() -> Config:
    """Values for the digits: 4x4 vectors of 3 numbers, each one of 64."""
    config = images.config_digits()
    config.model = first_stages.sizes_vq(channels=16, multipliers=(1, 2), codes=64)
    config.model.blocks = 1
    config.model.groups = 8
    return with_commitment(config)


def with_commitment(config: Config, beta: float = 0.25) -> Config:
    """`config` with what it costs an encoder to stay away from its codes."""
    config.model.beta = values.number(
        beta, "weight of the mean squared commitment, beside the mean absolute error", 0, 1e6
    )
    return config


def method(
    config: ConfigDict, data: Data, read: ReadData = ABSOLUTE, judgement: Judgement = adversarial.ERRORS
) -> Autoencoding:
    """A first stage whose latents are quantised, of a codebook that is trained by its distance to them.

    All terms are means over entries, unlike those of other autoencoders. `beta` weighs the commitment, as VQ-VAE's
    authors have it; the codes of VQGAN and of latent diffusion weigh the codebook's term by it instead.

    Args:
      config: values, as `default_config` names them.
      data: x0 [H, W, C] in [-1, 1] (`pixels.data`).
      read: what the decoder's numbers say: `first_stage_kl.ABSOLUTE` or `SQUARED`.
      judgement: what else trains it: `adversarial.patches`, `adversarial.perceived`.
    """
    network, sizes = first_stages.vq(config.model, data), config.model

    def codebook(params):
        return params["codebook"]

    def beside(key, params):
        return {**judgement.beside(key, params), "codebook": random_codebook(sizes.codes, sizes.dim, key)}

    halves, decoder = latents.quantised(network, codebook), latents.decoder(network)
    init = judgement._replace(beside=beside).init(init_of(network, data.shape))
    shapes = jax.eval_shape(init, jax.random.key(0))
    entries = math.prod(latents.latent_shape(halves, shapes, data.shape))

    def teach(*given):
        return quantizers.by_distance(*given) / entries

    code = coder(halves.encode, quantizers.vector_quantized(codebook, sizes.beta / entries, teach))
    compare = distortions.averaged(judgement.compare(distortions.unlikely(read)))

    def decode(params, z):
        return read(params, decoder(params, z))

    return Autoencoding(
        data,
        init,
        code,
        decode,
        objectives.costing(code, judgement.distort(decoder, compare), objectives.beta(0.0)),
        looks={"codes": looks.codes(code, sizes.codes, data.view, black=-1.0)},
        surveys=(
            surveys.likeness(code, decode),
            surveys.usage(code, sizes.codes),
            surveys.latents(coder(halves.encode, bottlenecks.mean)),
            *judgement.surveys(code, decode),
        ),
        optimizer=judgement.optimizer,
        held=judgement.held,
        tokens=Tokens(sizes.codes, quantizers.looked_up(codebook)),
        halves=halves,
        whole=judgement.whole,
    )


def random_codebook(size: int, dim: int, key: jax.Array) -> jax.Array:
    """Codes [size, dim] uniform within 1 / size of 0, where all are near to whatever the encoder says at first."""
    return rng.flat(jax.random.uniform, key, (size, dim), jax.numpy.float32, -1 / size, 1 / size)


build = composed(method)
