"""Your own images: a folder of PNG, JPEG, WebP, BMP, GIF or TIFF files, cut about the centre and shrunk.

  python -m diffusion_jax.train --config configs/folder.py --workdir runs/mine --config.data.dir=PATH

64x64 by default, with CIFAR-10's network and one more level (46M parameters); for another size set
--config.data.shape=(H,W,3), multiples of 16. A few thousand images and 100k steps are a start.
"""

from diffusion_jax.methods import ddpm, pixels


def get_config():
    config = ddpm.default_config()
    config.data.shape = (64, 64, 3)
    config.data.threads = 16
    config.model.multipliers = (1, 2, 2, 2, 2)
    config.model.attention_levels = (2,)
    config.train.batch_size = 64
    config.train.learning_rate = 1e-4
    config.train.steps = 200_000
    config.log.checkpoint_every = 2000
    config.log.sample_every = 2000
    return config


def build(config):
    return ddpm.build(config, pixels.own_images(config))
