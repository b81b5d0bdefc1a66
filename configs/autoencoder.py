"""A plain autoencoder of handwritten digits, 8x8: 16 numbers stand for 64.

  python -m diffusion_jax.train --config configs/autoencoder.py --workdir runs/autoencoder
  python -m diffusion_jax.sample --workdir runs/autoencoder --reconstruct --num 16
  python -m diffusion_jax.evaluate --workdir runs/autoencoder --num 0 --codes

Half a minute on two CPU cores, 4000 updates. Expect a mean squared error of 0.0064 of a pixel of the 597 test digits
(0.0066 with seed 1), where 16 principal components leave 0.0114.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, plain


def get_config():
    return plain.default_config()


def build(config):
    return plain.build(config, images.data(config, sources.digits))
