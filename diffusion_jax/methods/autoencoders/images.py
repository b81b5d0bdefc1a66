"""What autoencoders of images share: values, and images in [0, 1] as data."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import Source
from diffusion_jax.data import sources, views
from diffusion_jax.data.pipeline import random_binarize
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import base_config, with_dir, without_chain
from diffusion_jax.training.experiment import Data


def config_digits() -> Config:
    """Values for scikit-learn's 8x8 digits."""
    config = pixels.with_shape(without_chain(base_config()), (8, 8, 1))
    config.data.threads = 1
    config.train.batch_size = 128
    config.train.steps = 4000
    config.train.steps_per_call = 50
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 100
    config.train.ema_decay = 0.99
    config.log.every = 200
    config.log.checkpoint_every = 2000
    config.log.sample_every = 2000
    config.log.samples = 36
    return config


def config_mnist() -> Config:
    """Values for MNIST, 28x28, from TFDS."""
    config = with_dir(config_digits())
    config.data.shape = (28, 28, 1)
    config.data.threads = 4
    config.train.steps = 100_000
    config.train.ema_decay = 0.999
    config.log.every = 500
    config.log.checkpoint_every = 10_000
    config.log.sample_every = 10_000
    return config


def with_perceptron(config: Config, codes: int) -> Config:
    """`config` with the values of a perceptron each way (`models.autoencoders.mlp`)."""
    config.model = Config(
        codes=values.count(codes, "numbers of a code", 16_384),
        hidden=values.listed((256, 256), "features of the encoder's hidden layers", values.Whole(1, 65_536), most=32),
    )
    return config


def data(config: ConfigDict, source: Source) -> Data:
    """Images of `config.data.shape`, float32 in [0, 1]."""
    return pixels.data(config, source)._replace(clean=unit, view=views.pictures(0.0))


def binarized(config: ConfigDict, source: Source) -> Data:
    """Images of `config.data.shape`, 0 and 1: what is above half of the lightest is 1."""
    return data(config, source)._replace(clean=lambda batch: (unit(batch) > 0.5).astype(jnp.float32))


def binarized_by_chance(config: ConfigDict, source: Source) -> Data:
    """Images of `config.data.shape`, 0 and 1, drawn with their greys as probabilities.

    Training draws anew each time that an example is seen (Salakhutdinov & Murray 2008); the test split is drawn once.
    """
    known = binarized(config, lambda split: source(split) if split == "train" else sources.binarized(source(split)))
    return known._replace(transforms=(random_binarize,))


def unit(batch: dict[str, jax.Array]) -> jax.Array:
    """The images of a batch, float32 in [0, 1]."""
    return batch["image"].astype(jnp.float32) / 255
