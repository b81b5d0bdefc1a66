"""MNIST, padded to 32x32, unconditional.

  python -m diffusion_jax.train --config configs/mnist.py --workdir runs/mnist

60,000 digits through TFDS (12 MB; preparing them needs the extra `tfds`). 9M parameters: an afternoon on one
GPU for 50k steps. Digits are legible after about 5k steps. Not yet trained to the end with this code.
"""

from PIL import ImageOps

from diffusion_jax.data import sources
from diffusion_jax.methods import ddpm


def get_config():
    config = ddpm.default_config()
    config.data.shape = (32, 32, 1)
    config.data.flip = False  # a mirrored 2 is not a 2
    config.model.channels = 64
    config.train.steps = 50_000
    config.train.ema_decay = 0.999
    return config


def build(config):
    def pad(picture):
        return ImageOps.expand(picture, border=2)  # 28 cannot be halved three times; 32 can

    return ddpm.build(
        config, source=lambda split: sources.tfds_images("mnist", split, config.data.dir or None, transform=pad)
    )
