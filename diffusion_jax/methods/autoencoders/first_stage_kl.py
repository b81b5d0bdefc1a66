"""KL-regularised first stages of latent diffusion (Rombach et al. 2022, section 3.1 and appendix G)."""

from ml_collections import ConfigDict

from diffusion_jax.autoencoding import bottlenecks, distortions, latents, laws, objectives
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import ReadData
from diffusion_jax.methods.autoencoders import adversarial, first_stages, images, surveys
from diffusion_jax.methods.autoencoders.adversarial import Judgement
from diffusion_jax.methods.autoencoders.compose import Autoencoding, composed, init_of
from diffusion_jax.training.experiment import Data

ABSOLUTE = laws.laplace(1.0)  # -log p is the absolute error, but for a constant
SQUARED = laws.gaussian(0.5)  # the squared one


def default_config() -> Config:
    """Values for the digits: latents of 4x4x2, whose rate costs enough that they come out of about unit variance."""
    config = images.config_digits()
    config.model = first_stages.sizes(channels=16, multipliers=(1, 2), latent=2)
    config.model.blocks = 1
    config.model.groups = 8
    config.train.steps = 1500
    return with_rate(config, 0.001)


def with_rate(config: Config, beta: float = 1e-6) -> Config:
    """`config` with what the rate costs; by default as in latent diffusion."""
    config.rate = Config(beta=values.number(beta, "weight of the rate, beside the sum of all errors", 0, 1e9))
    return config


def method(
    config: ConfigDict, data: Data, read: ReadData = ABSOLUTE, judgement: Judgement = adversarial.ERRORS
) -> Autoencoding:
    """A first stage whose latents are drawn.

    The rate costs next to nothing and only keeps latents from growing. So there is no prior: what is decoded of
    N(0, I) is noise. A diffusion model is the prior.

    Args:
      config: values, as `default_config` names them.
      data: x0 [H, W, C] in [-1, 1] (`pixels.data`).
      read: what the decoder's numbers say: `ABSOLUTE` or `SQUARED`.
      judgement: what else trains it: `adversarial.patches`, `adversarial.perceived`.
    """
    network = first_stages.kl(config.model, data)
    halves = latents.drawn(network)
    code = coder(halves.encode, bottlenecks.sampled)
    distort = judgement.distort(halves.decode, judgement.compare(distortions.unlikely(read)))

    def decode(params, z):
        return read(params, halves.decode(params, z))

    return Autoencoding(
        data,
        judgement.init(init_of(network, data.shape)),
        code,
        decode,
        objectives.costing(code, distort, objectives.beta(config.rate.beta)),
        surveys=(surveys.likeness(code, decode), surveys.latents(code), *judgement.surveys(code, decode)),
        optimizer=judgement.optimizer,
        held=judgement.held,
        halves=halves,
        whole=judgement.whole,
    )


build = composed(method)
