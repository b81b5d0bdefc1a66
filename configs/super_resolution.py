"""MNIST, 8x8 to 16x16: the second stage of a cascade, told a small digit and how noisy that is.

  python -m diffusion_jax.train --config configs/super_resolution.py --workdir runs/super_resolution
  python -m diffusion_jax.sample --workdir runs/super_resolution --num 36 --condition noise_level=0,0.3,0.6
  python -m diffusion_jax.sample --workdir runs/super_resolution --num 36 --condition low.npz

TODO
"""

from diffusion_jax.methods import captioned, pixels, super_resolution


def get_config():
    return super_resolution.config_mnist()


def build(config):
    images = pixels.data(config, captioned.mnist(config.data.dir, shrink=2))
    method = super_resolution.mnist(config, super_resolution.told_low(config, images))
    return super_resolution.compose_told(config, method)
