"""A denoising autoencoder of handwritten digits, 8x8: normal noise is taken off.

python -m diffusion_jax.train --config configs/denoising.py --workdir runs/denoising
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import denoising, images


def get_config():
    return denoising.with_noise(denoising.default_config())


def build(config):
    return denoising.build(config, images.data(config, sources.digits), denoising.noise(config))
