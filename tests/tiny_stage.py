"""A first stage that compiles in no time: a vector of the code is a linear map of 2x2 pixels, and knows its noise."""

import jax
import jax.numpy as jnp

from diffusion_jax.autoencoding import bottlenecks, laws, objectives
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.autoencoding.latents import Halves
from diffusion_jax.config import values
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.autoencoders.compose import Autoencoding, compose

NUM = {"train": 45, "test": 6}  # images of a split


def get_config():
    config = pixels.with_flip(pixels.config_digits())
    config.data.more = values.count(0, "further images of the train split", zero="none")
    config.data.damaged = values.count(0, "an image that cannot be read", zero="none")
    config.train.update(batch_size=8, steps=1, steps_per_call=1)
    config.log.update(sample_every=0, every=1)
    config.data.threads = 0
    return config


def init(key):
    into, back, noise = jax.random.split(key, 3)
    return {
        "encoder": {"mean": jax.random.normal(into, (4, 3)), "log_std": jax.random.normal(noise, (4, 3))},
        "decoder": jax.random.normal(back, (3, 4)),
    }


def encode(params, x):
    batch, height, width, _ = x.shape
    if height % 2 or width % 2:
        raise InputError(f"images of {height}x{width} cannot be halved once")
    squares = (
        x.reshape(batch, height // 2, 2, width // 2, 2).swapaxes(2, 3).reshape(batch, height // 2, width // 2, 4)
    )
    mean, log_std = (jnp.tanh(squares @ params["encoder"][name]) for name in ("mean", "log_std"))
    return Gaussian(mean, jnp.exp(2 * log_std))


def decode(params, z):
    batch, height, width, _ = z.shape
    squares = (z @ params["decoder"]).reshape(batch, height, width, 2, 2).swapaxes(2, 3)
    return squares.reshape(batch, 2 * height, 2 * width, 1)


def build(config):
    code, law = coder(encode, bottlenecks.sampled), laws.gaussian(0.5)

    def of_data(params, z):
        return law(params, decode(params, z))

    loss = objectives.loss(code, of_data)

    def source(split):
        digits = sources.digits(split)

        def read(index):
            if 0 < index == config.data.damaged:
                raise InputError(f"cannot read image {index}")
            return digits[index]

        return sources.Mapped(range(NUM[split] + (split == "train") * config.data.more), read)

    data = pixels.data(config, source)
    return compose(config, Autoencoding(data, init, code, of_data, loss, halves=Halves(encode, decode)))
