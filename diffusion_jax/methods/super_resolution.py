"""Super-resolution, a stage of a cascade (Ho et al. 2022): images, of which the network is told a small one.

In training the small image is made of the image itself, by means of blocks, and gets noise of a level that is drawn
uniformly and told. Samples are told a small image of a user or of another model, with noise of a level that is
chosen: little, and the sample keeps to it; more, and what is wrong with it is mended.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core import resizing, rng
from diffusion_jax.core.protocols import OfTime, Resize, Retell
from diffusion_jax.data import conditions
from diffusion_jax.diffusion import cascades, losses, parameterizations, schedules, time_sampling
from diffusion_jax.diffusion.cascades import LOW
from diffusion_jax.diffusion.noising import LEVEL
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.methods import captioned, compose, continuous, pixels
from diffusion_jax.methods.autoencoders.compose import first_rows
from diffusion_jax.methods.compose import Data, Method
from diffusion_jax.methods.ddpm import CLIPPED
from diffusion_jax.models.blocks.conditioning import NumberEmbedding
from diffusion_jax.models.unets.of_patches import OfPatches
from diffusion_jax.models.unets.skeleton import Skeleton
from diffusion_jax.models.unets.super_resolution import SuperResolution
from diffusion_jax.training.experiment import Experiment, MakeSampler

SCHEDULE = schedules.cosine()  # of the images, and of the noise on the small ones


def with_low(config: Config, size: tuple[int, int], level: float = 0.1) -> Config:
    """`config` with the size of the small images, and the noise on those of samples where no level is told."""
    config.low = Config(
        size=values.listed(size, "height and width of the small images", values.Whole(1, 4096), 2, 2),
        level=values.share(level, "noise on the small images of samples where no noise_level is told"),
    )
    return config


def config_mnist() -> Config:
    """Values for MNIST, 8x8 to 32x32: a U-Net of blocks of pixels."""
    config = with_low(captioned.config_mnist((32, 32, 1)), (8, 8))
    config.model = pixels.config_digits().model
    config.model.channels = 64
    config.model.patch = values.count(4, "side of the blocks of pixels that the U-Net sees as one", 256)
    config.train.batch_size = 64
    config.train.steps = 2500
    config.train.decay_steps = 2400
    config.log.samples = 36
    return config


def unet(config: ConfigDict) -> Skeleton:
    """DDPM's U-Net with the values of `config.model`, which hears the level."""
    return pixels.unet(config, embed={LEVEL: NumberEmbedding(1000)})


def told_low(config: ConfigDict, images: Data, untold: Mapping[str, Any] = MappingProxyType({})) -> Data:
    """`images` of which the network is told a small one, "low_res", and its noise, "noise_level", beside the rest.

    Samples are told a user's small images, each at each of the levels; by default those of the test images.

    Args:
      config: values, as `with_low` names them.
      images: of a size that `config.low.size` divides.
      untold: what is told beside a user's small images where that is all that is given, such as a label for none.
    """
    shape = (*config.low.size, images.shape[-1])

    def condition(batch):
        small = resizing.means(images.clean(batch), shape[:2])
        (rest,) = images.condition(batch) or ({},)
        return ({**rest, LOW: small, LEVEL: jnp.zeros(len(small))},)

    def told(num, given):
        rest = {name: x for name, x in given.items() if name != LOW}
        if LOW in given:
            small = given[LOW]
            beside: Mapping = untold
        else:
            (known,) = condition(first_rows(images, images.source("test"), num))
            small = known[LOW]
            beside = {name: x for name, x in known.items() if name not in (LOW, LEVEL)}
        (cond,) = conditions.pictures(dict, **{LOW: shape})(num, {LOW: small})
        (others,) = images.sample_condition(num, {**beside, **rest}) or ({},)
        return ({**others, **cond},)

    return images._replace(condition=condition, sample_condition=conditions.swept(told, LEVEL, config.low.level))


def method(
    data: Data,
    network: nn.Module,
    enlarge: Resize = resizing.bilinear,
    prediction: Callable[[Schedule, OfTime], Parameterization] = parameterizations.v,
) -> Method:
    """Super-resolution of `data`, as `told_low` makes it.

    Args:
      data: images in [-1, 1].
      network: for the image and the enlarged small one as its channels; it hears "noise_level" as a number in [0, 1],
        and what else `data` tells.
      enlarge: how the small one is enlarged (`core.resizing`).
      prediction: `(schedule, time) -> Parameterization`, what the network says.
    """
    plain = continuous.model_of(data, SuperResolution(network, enlarge), SCHEDULE, prediction, CLIPPED)

    return augmented(plain, _augment)


def augmented(plain: Method, retell: Retell) -> Method:
    """`plain`, whose small images `retell` spoils in training, at levels that are drawn uniformly from [0, 1]."""

    def loss(*parts):
        return losses.augmented(plain.loss(*parts), retell, time_sampling.uniform(0.0))

    return plain._replace(loss=loss)


_augment: Retell = cascades.telling(cascades.noised(SCHEDULE))


def compose_told(config: ConfigDict, method: Method) -> Experiment:
    """`method`, of this page, as an experiment whose samplers put noise on the small images that they are told."""
    experiment = compose.compose(config, method)
    sampling = experiment.sampling
    preview = sampling.preview
    return experiment._replace(
        sampling=sampling._replace(
            samplers={name: spoiling(make) for name, make in sampling.samplers.items()},
            preview=preview and (lambda batch: _spoiled(preview(batch), batch)),
        )
    )


def spoiling(make: MakeSampler) -> MakeSampler:
    """A sampler that is told a noisy image as one that is told a clean one, which gets noise of the level told."""
    return lambda request: _spoiled(make(request), request.batch)


def _spoiled(draw, batch):
    def sample(params, key, cond):
        keys = rng.of_batch(key, batch)
        own = jax.vmap(lambda key: rng.stream(key, "augment"))(keys)
        return draw(params, keys, _augment(own, cond, cond[LEVEL]))

    return sample


def mnist(config: ConfigDict, images: Data) -> Method:
    """`method` of the values of `config_mnist`. The network says x0: most pixels are black or white."""
    side = config.model.patch
    network = pixels.unet(config, outputs=side**2, embed={LEVEL: NumberEmbedding(1000)})
    return method(images, OfPatches(network, side), prediction=continuous.says_x0)
