"""Imagen's super-resolution (Saharia et al. 2022) in small, and the whole cascade: texts become larger pictures.

An Efficient U-Net is told a small picture, with noise of a level that is told, and the text. In training the small
picture is made of the image itself. The run holds a base with its encoder of texts (`methods.imagen`), neither of
which is trained further: samples are told what that base draws of a text. Each stage has its own steps, guidance and
threshold.
"""

from functools import cache
from types import SimpleNamespace

import jax
import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core import resizing, rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Hold, Tree
from diffusion_jax.data import captions, conditions
from diffusion_jax.diffusion import cascades, schedules, stages
from diffusion_jax.diffusion.cascades import LOW
from diffusion_jax.diffusion.noising import LEVEL
from diffusion_jax.methods import captioned, continuous, guided, imagen, pixels, runs, staged, super_resolution, texts
from diffusion_jax.methods.compose import Data, Method, with_dir
from diffusion_jax.methods.staged import Pipeline
from diffusion_jax.methods.text_to_image.imagen import WITHHELD, spoiled
from diffusion_jax.methods.text_to_image.readers import Reader
from diffusion_jax.models.blocks.conditioning import MeanTokensEmbedding, NumberEmbedding
from diffusion_jax.models.encoders.told_texts import ToldTexts
from diffusion_jax.models.unets.efficient import EfficientUNet
from diffusion_jax.models.unets.skeleton import Skeleton
from diffusion_jax.models.unets.super_resolution import SuperResolution
from diffusion_jax.training.experiment import Experiment, SampleRequest

TEXT, BASE, UPPER = "text", "base", "super_resolution"  # stages; the first two are what a run holds
SCHEDULE = schedules.cosine()
AUGMENT = cascades.noised(SCHEDULE)


def config_mnist() -> Config:
    """Values for MNIST, 8x8 to 32x32, and of what the base's run must have."""
    config = super_resolution.with_low(with_dir(pixels.config_digits()), (8, 8))
    config.data.shape = (32, 32, 1)
    config.model.multipliers = (1, 2, 2)
    config.model.attention_levels = (2,)
    base = imagen.config_mnist()
    config.text = imagen.text_values()
    for name, value in guided.guidance_values("text", usual=1.0).items():
        config.text[name] = value
    config.text.threshold = imagen.threshold_value()
    config.base = base.model
    config.base.run = values.text("", "work directory of the base (configs/imagen_base.py)")
    config.base.guidance = values.number(1.5, "guidance of its chain; 1 is as learned", -1000, 1000)
    config.base.threshold = imagen.threshold_value()
    config.base.steps = values.count(25, "steps of its chain", 100_000)
    config.train.batch_size = 64
    config.train.steps = 800
    config.train.decay_steps = 750
    config.train.ema_decay = 0.99
    config.log.checkpoint_every = 500
    config.log.sample_every = 500
    config.log.samples = 30
    config.log.preview_steps = 25
    return config


def network_of(config: ConfigDict) -> Skeleton:
    """The network that enlarges, with the values of `config.model`."""
    embed = {"text": MeanTokensEmbedding(), LEVEL: NumberEmbedding(1000)}
    return pixels.unet(config, kind=EfficientUNet, heads=imagen.HEADS, embed=embed)


def method(
    data: Data, network: nn.Module, withheld: float = 0.1, usual: float = 1.0, threshold: float = 1.0
) -> Method:
    """Super-resolution of `data`, told a text.

    Args:
      data: of pictures in [-1, 1], of the size of the large ones.
      network: of the image and the enlarged small one as its channels; it hears "tokens", "token_mask" and
        "noise_level".
      withheld: share of the examples that are not told their text.
      usual: scale of guidance by the text where none is asked for; 1 is as learned.
      threshold: the largest of dynamic thresholding; 1 clips.
    """
    plain = continuous.model_of(
        data, SuperResolution(network), SCHEDULE, continuous.says_x0, (imagen.thresholding(threshold),)
    )
    noisy = super_resolution.augmented(plain, cascades.telling(AUGMENT))
    return guided.classifier_free(noisy, WITHHELD, withheld, usual)


def cascade(config: ConfigDict) -> tuple[Pipeline, Method]:
    """What is around the network that enlarges, from texts to pictures, and the method of that network."""
    shape = tuple(config.data.shape)
    low = (*config.low.size, shape[-1])
    text, section = config.text, config.base
    words, images = captions.WORDS, captioned.data(shape, captioned.mnist(config.data.dir))
    model = imagen.reading(SimpleNamespace(model=section, text=text, data=SimpleNamespace(shape=low)))
    hold = cache(lambda: base_of(section.run, model, low))
    reader = texts.reader(model.text, text.features, words, lambda: hold()[TEXT])
    base = imagen.plain(images._replace(shape=low), model.network, section.threshold)
    pipeline = of_base(hold, reader, base, low, section.steps, section.guidance)
    told = conditions.swept(conditions.prompts(words.encode, captions.ALL), LEVEL, config.low.level)
    data = images._replace(shape=shape, sample_condition=told)
    return pipeline, method(data, network_of(config), text.withheld, text.guidance, text.threshold)


def of_base(
    hold: Hold, reader: Reader, base: Method, low: tuple[int, int, int], steps: int, guidance_scale: float
) -> Pipeline:
    """The pipeline around a network that enlarges: what reads texts, a base, and the noise on its pictures.

    Args:
      hold: `() -> {"text": the reader's parameters, "base": the base's}`.
      reader: of texts; one that gives "tokens" and "token_mask" may take the place of another.
      base: of pictures of the shape `low`, told what the reader says; it draws by DDIM.
      low: [h, w, C] of a small picture.
      steps, guidance_scale: of the base's chain.
    """
    length = (reader.tokenizer.length,)
    draws = texts.chains(base, base.model, guidance_scale)["ddim"]

    def small(params, keys, cond):
        return draws(SampleRequest(len(keys), steps=steps))(params, keys, cond)

    def encode(held, keys, x0):
        image = x0["image"]
        said = reader.says(held[TEXT], x0["ids"], x0["mask"])
        return image, {**said, LOW: resizing.means(image, low[:2]), LEVEL: jnp.zeros(len(image))}

    told = {
        **reader.told,
        LOW: jax.ShapeDtypeStruct(low, jnp.float32),
        LEVEL: jax.ShapeDtypeStruct((), jnp.float32),
    }
    read = texts.both_stage(TEXT, reader)
    before = (read, stages.chain(BASE, small, read.gives, LOW, low), spoiled(AUGMENT, low))
    return Pipeline(
        hold,
        encode,
        told,
        given={"ids": length, "mask": length, LEVEL: ()},
        name=UPPER,
        into="image",
        result="image",
        before=before,
    )


def build(config: ConfigDict) -> Experiment:
    """The network that enlarges as an experiment whose samples are the cascade's."""
    return staged.compose(config, *cascade(config))


def base_of(folder: str, model: ToldTexts, low: tuple[int, int, int]) -> dict[str, Tree]:
    """{"text", "base"}: the averaged parameters of the base in `folder`, and of its encoder.

    Raises:
      InputError: there is no such run, its network is another, or its pictures are not of the shape `low`.
    """
    run = runs.opened(folder, "--config.base.run", "base")
    if tuple(run.experiment.data.shape) != low:
        shape = "x".join(map(str, run.experiment.data.shape))
        raise InputError(f"the base in {folder} draws {shape}; give its height and width as --config.low.size")
    params = run.read()
    runs.check_alike(params, template(model, low), folder, "base and --config.text")
    return {TEXT: params[texts.TEXT], BASE: params[texts.NETWORK]}


def template(model: ToldTexts, low: tuple[int, int, int]) -> Tree:
    """The shapes of the parameters of a base with its encoder."""
    ids = jnp.zeros((1, captions.WORDS.length), jnp.int32)
    told = {"ids": ids, "mask": ids > 0}
    return jax.eval_shape(model.init, rng.root(0), jnp.zeros((1, *low)), jnp.zeros(1), told)["params"]
