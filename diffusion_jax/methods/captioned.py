"""MNIST and its captions as data: "a thick seven"."""

import jax
import jax.numpy as jnp
import numpy as np
from PIL import ImageOps

from diffusion_jax.core.protocols import Source
from diffusion_jax.data import captions, images, sources, views
from diffusion_jax.data.sources import Mapped
from diffusion_jax.training.experiment import Data


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
    length = (captions.WORDS.length,)
    return Data(
        captions.of_digits(source),
        example={
            "image": jax.ShapeDtypeStruct(shape, jnp.uint8),
            "ids": jax.ShapeDtypeStruct(length, jnp.int32),
            "mask": jax.ShapeDtypeStruct(length, jnp.bool_),
        },
        clean=lambda batch: {"image": images.to_float(batch["image"]), "ids": batch["ids"], "mask": batch["mask"]},
        shape={"image": shape, "ids": length, "mask": length},
        view=views.pictures(),
    )
