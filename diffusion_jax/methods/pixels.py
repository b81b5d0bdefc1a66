"""What methods on images share: values, the U-Net, and images as data."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config, Value
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Examples, Source
from diffusion_jax.data import conditions, hints, images, sources, toys, views
from diffusion_jax.data import latents as kept_latents
from diffusion_jax.data.pipeline import random_flip
from diffusion_jax.methods.compose import Data, base_config, with_dir
from diffusion_jax.models.ops import attention
from diffusion_jax.models.unets.skeleton import Skeleton
from diffusion_jax.models.unets.unet import UNet

FACTOR = values.Whole(1, 256)


def default_config() -> Config:
    """The values of DDPM's CIFAR-10 experiment (Ho et al. 2020, section 4 and appendix B); configs change some."""
    return with_flip(with_dir(_images()))


def with_flip(config: Config) -> Config:
    """`config` of images that may be mirrored."""
    config.data.flip = values.flag(True, "whether training images are mirrored at random")
    return config


def _images() -> Config:
    config = with_shape(base_config(), (32, 32, 3))
    config.model = Config(
        channels=values.count(128, "features of the first level, where its multiplier is 1", 16_384),
        multipliers=values.listed((1, 2, 2, 2), "features of each level, as multiples of channels", FACTOR, 1, 12),
        blocks=values.count(2, "residual blocks of a level on the way down", 64),
        attention_levels=values.listed((1,), "levels with attention, from 0", values.Whole(0, 11), most=12),
        dropout=values.share(0.1, "share of features that are dropped in training", below=True),
        groups=values.count(32, "groups of every group normalisation", 16_384),
        **computing(),  # type: ignore[arg-type]  # ConfigDict's own keywords come first
    )
    return config


def with_shape(config: Config, shape: tuple[int, int, int]) -> Config:
    """`config` with the shape of its images or latents, [H, W, C]."""
    side = values.Whole(1, 4096)
    config.data.shape = values.listed(shape, "height, width and channels of an example", side, 3, 3)
    return config


def computing() -> dict[str, Value]:
    """What `computed_by` reads, of a section `model`."""
    return {
        "bfloat16": values.flag(False, "whether convolutions, dense layers and attention are in bfloat16"),
        "flash": values.flag(False, "whether cuDNN computes attention: on a GPU, in bfloat16"),
    }


def config_256() -> Config:
    """The values of its 256x256 experiments (LSUN, CelebA-HQ): six levels, attention at 16x16."""
    config = default_config()
    config.data.shape = (256, 256, 3)
    config.data.threads = 16
    config.model.multipliers = (1, 1, 2, 2, 4, 4)
    config.model.attention_levels = (4,)
    config.model.dropout = 0.0
    config.train.batch_size = 64
    config.train.learning_rate = 2e-5
    config.log.samples = 16
    return config


def config_edm() -> Config:
    """The values of EDM's CIFAR-10 experiment, 200 million images (Karras et al. 2022, table 7).

    For DDPM++ and NCSN++, which consistency models and their like have too. Its augmentation of images is not here.
    """
    config = default_config()
    config.model.multipliers = (2, 2, 2)
    config.model.blocks = 4
    config.model.attention_levels = (1,)
    config.model.dropout = 0.13
    config.train.batch_size = 512
    config.train.steps = 390_625
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 19_531  # 10 million images
    config.train.clip_norm = 0.0
    config.train.ema_decay = 0.5 ** (512 / 500_000)  # half a million images are half of it
    return config


def config_imagenet64() -> Config:
    """The values of ADM's ImageNet 64x64 network (Dhariwal & Nichol 2021, table 11)."""
    config = default_config()
    config.data.shape = (64, 64, 3)
    config.data.threads = 32
    config.model.channels = 192
    config.model.multipliers = (1, 2, 3, 4)
    config.model.blocks = 3
    config.model.attention_levels = (1, 2, 3)
    config.model.bfloat16 = True
    config.train.batch_size = 2048
    config.log.samples = 100
    return config


def config_digits() -> Config:
    """Values for scikit-learn's 8x8 digits: a network that learns them in two minutes on two CPU cores.

    They are never mirrored: a mirrored 2 is not a 2.
    """
    config = _images()
    config.data.shape = (8, 8, 1)
    config.data.threads = 1
    # A third level with attention costs 1.7 times the time a step, and after 1000 steps was no better for it.
    config.model.channels = 32
    config.model.multipliers = (1, 2)
    config.model.blocks = 1
    config.model.attention_levels = ()  # the middle of the network, at 4x4, has it always
    config.model.dropout = 0.0
    config.model.groups = 8
    config.train.batch_size = 32
    config.train.steps = 3000
    config.train.steps_per_call = 10  # 1.1 to 1.2 times as fast as one
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 100
    config.train.ema_decay = 0.997
    config.log.every = 50
    config.log.checkpoint_every = 1000
    config.log.sample_every = 1000
    config.log.samples = 36
    config.log.preview_steps = 50
    return config


def data(config: ConfigDict, source: Source) -> Data:
    """Images of `config.data.shape`, in [-1, 1]; mirrored at random where `config.data.flip` is there and on."""
    shape = tuple(config.data.shape)
    return Data(
        source,
        example={"image": jax.ShapeDtypeStruct(shape, jnp.uint8)},
        clean=lambda batch: images.to_float(batch["image"]),
        shape=shape,
        view=views.pictures(),
        transforms=(random_flip,) if config.data.get("flip", False) else (),
    )


def own_images(config: ConfigDict, read: Callable[..., Examples] = sources.folder) -> Source:
    """`split -> source` of the images in `config.data.dir`, of the size of `config.data.shape`.

    `read(path, (height, width), channels)` opens the folder.

    There is a "train" split alone. It raises `InputError` for another, and where no folder is given.
    """

    def source(split):
        if not config.data.dir:
            raise InputError("no folder of images is given; add --config.data.dir=PATH")
        if split != "train":
            raise InputError(f"a folder of images has no {split} split; give other images as a folder of their own")
        return read(config.data.dir, tuple(config.data.shape[:2]), config.data.shape[2])

    return source


def latents(images: Data, shape: tuple[int, int, int], source: Source, flip: bool) -> Data:
    """Latents of images that were prepared (`sources.latents`), drawn anew whenever they are trained on.

    Args:
      images: that they were made of.
      shape: of a latent, [h, w, c].
      source: `split -> source` of latents.
      flip: whether mirror images are drawn as well, with probability 1/2.
    """
    rest = {name: x for name, x in images.example.items() if name != "image"}
    return images._replace(
        source=(lambda split: kept_latents.with_mirrors(source(split))) if flip else source,
        example={"latent": jax.ShapeDtypeStruct(shape, jnp.float32), **rest},
        clean=lambda batch: batch["latent"],
        shape=shape,
        transforms=((kept_latents.random_mirror,) if flip else ()) + (kept_latents.draw,),
    )


def with_labels(data: Data, classes: int) -> Data:
    """`data` whose examples have a label, 0 to classes - 1, of which the network is told."""
    return data._replace(
        source=lambda split: sources.with_labels(data.source(split), classes),
        example={**data.example, "label": jax.ShapeDtypeStruct((), jnp.int32)},
        condition=lambda batch: ({"label": batch["label"]},),
        sample_condition=conditions.labels(classes),
    )


def with_edges(data: Data) -> Data:
    """`data` of images, of whose edges the network is told; samples are told those of the test images."""

    def default(num):
        source = data.source("test")
        some = np.stack([source[i]["image"] for i in range(min(num, len(source)))])
        return {"hint": np.asarray(hints.edges(images.to_float(some)))}

    return data._replace(
        condition=lambda batch: ({"hint": hints.edges(data.clean(batch))},),
        sample_condition=conditions.arrays(default, hint=(*data.shape[:2], 1)),
    )


def levels(config: ConfigDict, source: Source, num: int) -> Data:
    """Images of `config.data.shape` as tokens, each entry one of `num` levels of grey (`toys.levels`)."""
    shape = tuple(config.data.shape)
    return Data(
        source=lambda split: toys.levels(source(split), num),
        example={"tokens": jax.ShapeDtypeStruct(shape, jnp.int32)},
        clean=lambda batch: batch["tokens"],
        shape=shape,
        view=views.levels(num),
    )


def computed_by(config: ConfigDict) -> dict:
    """`computed` of `config.model`."""
    return computed(config.model)


def computed(model: ConfigDict) -> dict:
    """Fields of networks that say how they compute: in which type, and what attention is computed by."""
    return {
        "dtype": jnp.bfloat16 if model.bfloat16 else jnp.float32,
        "attend": attention.flash if model.flash else attention.by_xla,
    }


def unet(config: ConfigDict, outputs: int = 1, kind: type[Skeleton] = UNet, **fields: Any) -> Skeleton:
    """DDPM's U-Net with the values of `config.model`; it says `outputs` numbers of each of an image's entries.

    `kind` is another U-Net (`models.ADMUNet`), and `fields` are more of its fields, or stand for those of the values:
    `out_channels` for latents.
    """
    known = dict(
        channels=config.model.channels,
        multipliers=tuple(config.model.multipliers),
        blocks=config.model.blocks,
        attention_levels=tuple(config.model.attention_levels),
        out_channels=outputs * config.data.shape[-1],
        dropout=config.model.dropout,
        groups=config.model.groups,
        **computed_by(config),
    )
    return kind(**{**known, **fields})
