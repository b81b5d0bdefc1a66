"""VQ-VAE of handwritten digits, 8x8.

python -m diffusion_jax.train --config configs/vqvae.py --workdir runs/vqvae
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, vq_vae


def get_config():
    return vq_vae.default_config()


def build(config):
    return vq_vae.build(config, images.data(config, sources.digits))
