"""A denoising autoencoder of handwritten digits, 8x8: pixels that are made black are found again.

python -m diffusion_jax.train --config configs/denoising_masking.py --workdir runs/denoising_masking
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import denoising, images


def get_config():
    return denoising.with_masks(denoising.default_config())


def build(config):
    return denoising.build(config, images.data(config, sources.digits), denoising.masks(config))
