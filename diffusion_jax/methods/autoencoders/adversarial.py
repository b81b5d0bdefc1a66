"""What first stages are trained by beside an error of pixels: a discriminator of patches, and LPIPS.

Adversarial first stages are VQGAN's (Esser et al. 2021) and latent diffusion's (Rombach et al. 2022, appendix G).
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import adversarial, distortions
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.messages import line
from diffusion_jax.core.protocols import (
    Coder,
    Compare,
    CompareOf,
    Decode,
    Distance,
    DistortOf,
    Hold,
    InitBeside,
    InitFn,
    Lose,
    Tree,
)
from diffusion_jax.methods import perceptual
from diffusion_jax.methods.autoencoders import surveys
from diffusion_jax.models.judges.patch import PatchDiscriminator
from diffusion_jax.training.experiment import Data, Survey
from diffusion_jax.training.optimizers import MakeOptimizer, adam, adam_of_betas, by_part, moving, with_betas


def nothing_beside(key: jax.Array, params: dict) -> dict:
    """No parts beside the network's."""
    return {}


def pixels_alone(compare: Compare) -> Compare:
    """`compare` itself."""
    return compare


class Judgement(NamedTuple):
    """What a first stage is trained by, of whatever bottleneck and law.

    Attributes:
      compare: `compare -> compare` (`distortions`): an error of pixels, and what else is compared.
      distort: `(decode, compare) -> distort`: what it costs to decode z, by what `compare` says of the result.
      beside: `(key, params) -> parts` of the parameters beside those of the network.
      optimizer: `config.train -> Optimizer` of all of them.
      held: arrays that are read once and never trained.
      seen: LPIPS of what is held, for measures; None without its files.
    """

    compare: CompareOf = pixels_alone
    distort: DistortOf = distortions.decoded
    beside: InitBeside = nothing_beside
    optimizer: MakeOptimizer = adam
    held: Hold = dict
    seen: Distance | None = None

    def surveys(self, code: Coder, decode: Decode) -> tuple[Survey, ...]:
        """What is measured of a whole set, beside errors of pixels."""
        return () if self.seen is None else (surveys.apart("LPIPS", self.seen, code, decode),)

    def whole(self, params: Tree, hold: Hold) -> Tree:
        """The parameters that measures take: with what `seen` looks at."""
        return params if self.seen is None else {**params, **hold()}

    def init(self, network: InitFn) -> InitFn:
        """`key -> params`, of the network's and of what lies beside them."""

        def both(key):
            own, other = jax.random.split(key)
            params = network(own)
            return {**params, **self.beside(other, params)}

        return both


ERRORS = Judgement()  # by errors of pixels alone


# ---- A discriminator.


def with_discriminator(config: Config, start: int, halvings: int = 3, weight: float = 0.5) -> Config:
    """`config` with the values of `patches`; by default those of latent diffusion's KL-f8."""
    config.discriminator = Config(
        start=values.count(start, "updates before the discriminator is trained and counts", zero="from the first on"),
        weight=values.number(weight, "of its gradient by the decoder's last kernel, beside the error's", 0, 1e9),
        features=values.count(64, "features of its first layer", 16_384),
        halvings=values.count(halvings, "its convolutions of stride 2", 12),
        groups=values.count(32, "groups of its group normalisations", 16_384),
        rate=values.number(1.0, "its learning rate, as a multiple of train.learning_rate", 0, 1e9),
        decay=values.share(0.0, "decay of the moving gradients that weigh it; 0 is the last batch's", below=True),
    )
    return with_betas(config, (0.5, 0.9))


def patches(config: ConfigDict, data: Data, lose: Lose = adversarial.hinge) -> Judgement:
    """A discriminator of patches; `config` has the values of `with_discriminator`.

    `lose` is what it learns by: `autoencoding.adversarial.hinge` or `vanilla`.

    The parameters have two parts more: "discriminator", and "balance", the statistics that weigh it.

    Raises:
      InputError: images are too small for so many halvings.
    """
    chosen = config.discriminator
    network = PatchDiscriminator(chosen.features, chosen.halvings, chosen.groups)
    image = jax.ShapeDtypeStruct((1, *data.shape), jnp.float32)
    jax.eval_shape(network.init, jax.random.key(0), image)  # refuses a size

    def discriminate(params, x):
        return network.apply({"params": params["discriminator"]}, x)

    def distort(decode, compare):
        return adversarial.against(decode, compare, discriminate, chosen.weight, chosen.start, lose)

    def beside(key, params):
        return {
            "discriminator": network.init(key, jnp.zeros(image.shape))["params"],
            "balance": adversarial.balance(params["decoder"]["output_conv"]["kernel"]),
        }

    faster = partial(adam_of_betas, times=chosen.rate)
    parts = by_part(adam_of_betas, discriminator=faster, balance=moving(chosen.decay))
    return Judgement(distort=distort, beside=beside, optimizer=parts)


# ---- LPIPS.


def with_lpips(config: Config, weight: float = 1.0) -> Config:
    """`config` with the values of `perceived`."""
    config = perceptual.with_lpips(config)
    config.lpips.weight = values.number(weight, "of LPIPS for each entry, beside that entry's error", 0, 1e9)
    return config


def perceived(config: ConfigDict, data: Data, judgement: Judgement = ERRORS) -> Judgement:
    """`judgement`, and LPIPS of images as they are, where the config names its files.

    Where it names none, a run that begins says in a line that it trains without.

    Args:
      config: with `with_lpips`.
      data: images [H, W, C] in [-1, 1], C 3 or 1, of at least 16x16.
      judgement: whatever else judges.

    Raises:
      InputError: as of `perceptual.named`.
    """
    weight, found = config.lpips.weight, perceptual.named(config, data, shown=perceptual.as_it_is)
    if found is None:
        return judgement._replace(held=_without)
    distance, hold = found

    def compare(pixels):
        return distortions.perceived(judgement.compare(pixels), distance, weight)

    return judgement._replace(compare=compare, held=hold, seen=distance)


def _without():
    line("trains without LPIPS; with it pictures are sharper: name its files, --config.lpips.network and .heads")
    return {}
