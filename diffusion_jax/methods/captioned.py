"""Pictures and texts as data: MNIST and its captions, "a thick seven"; a folder of one's own."""

import math
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict
from PIL import ImageOps

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import EncodeTexts, Examples, Source
from diffusion_jax.data import captioned_folder, captions, images, sources, views
from diffusion_jax.data.sources import Mapped
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import base_config, with_dir
from diffusion_jax.models.mlp import MLP, OfImages
from diffusion_jax.training.experiment import Data


def config_mnist(shape: tuple[int, int, int]) -> Config:
    """Values of what is trained on captioned digits of `shape`, but for the network."""
    config = with_dir(pixels.with_shape(base_config(), shape))
    config.train.steps_per_call = 10
    config.train.batch_size = 128
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 100
    config.train.ema_decay = 0.99
    config.log.every = 50
    config.log.checkpoint_every = 500
    config.log.sample_every = 500
    config.log.samples = 30
    config.log.preview_steps = 25
    return config


def perceptron_values(features: int, layers: int) -> Config:
    """What `perceptron` reads."""
    return Config(
        features=values.count(features, "features of each layer, an even number", 16_384, least=4),
        layers=values.count(layers, "residual blocks", 256),
    )


def perceptron(model: ConfigDict, shape: tuple[int, int, int], embed: Mapping[str, nn.Module]) -> OfImages:
    """A network of all pixels of small images at once, told what `embed` hears, with the values of `model`.

    It says x0, not noise, of which it knows less than the image has.
    """
    return OfImages(MLP(model.features, model.layers, embed, outputs=math.prod(shape)))


def mnist(data_dir: str = "", shrink: int = 1) -> Source:
    """MNIST of TFDS with a border of two pixels, 32x32, which can be halved; labels 0 to 9.

    With `shrink`, a divisor of 32, blocks of that side become one pixel, their mean.
    """

    def pad(picture):
        return ImageOps.expand(picture, border=2)

    def shrunk(example):
        image = example["image"]
        side = len(image) // shrink
        blocks = image.reshape(side, shrink, side, shrink, -1)
        return {**example, "image": np.rint(blocks.mean((1, 3))).astype(np.uint8)}

    return lambda split: Mapped(sources.tfds_images("mnist", split, data_dir or None, transform=pad), shrunk)


def data(shape: tuple[int, int, int], source: Source) -> Data:
    """Labelled digits and their captions as x0: {"image" float in [-1, 1], "ids" int [B, L], "mask" bool [B, L]}.

    Args:
      shape: of an image, [H, W, C].
      source: `split -> source` of {"image", "label"}.
    """
    return told(shape, captions.of_digits(source), captions.WORDS.length)


def told(shape: tuple[int, int, int], source: Source, tokens: int) -> Data:
    """Pictures and their texts as x0, as of `data`.

    Args:
      shape: of a picture, [H, W, C].
      source: `split -> source` of {"image", "ids", "mask"}.
      tokens: L, of a text.
    """
    length = (tokens,)
    return Data(
        source,
        example={
            "image": jax.ShapeDtypeStruct(shape, jnp.uint8),
            "ids": jax.ShapeDtypeStruct(length, jnp.int32),
            "mask": jax.ShapeDtypeStruct(length, jnp.bool_),
        },
        clean=lambda batch: {"image": images.to_float(batch["image"]), "ids": batch["ids"], "mask": batch["mask"]},
        shape={"image": shape, "ids": length, "mask": length},
        view=views.pictures(),
    )


def own(
    config: ConfigDict, encode: EncodeTexts, tokens: int, read: Callable[..., Examples] = captioned_folder.captioned
) -> Data:
    """Pictures and texts of a folder of one's own (`captioned_folder.captioned`), as of `told`.

    Args:
      config: values; `data.dir` is the folder, `data.shape` that of a picture.
      encode: `texts [N] -> (ids, mask)`, both [N, L].
      tokens: L.
      read: as of `pixels.own_images`.
    """

    def encoded(example):
        (ids,), (mask,) = encode([example["text"]])
        return {"image": example["image"], "ids": ids, "mask": mask}

    source = pixels.own_images(config, read)
    return told(tuple(config.data.shape), lambda split: Mapped(source(split), encoded), tokens)
