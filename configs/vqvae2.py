"""VQ-VAE-2 of handwritten digits, 8x8.

python -m diffusion_jax.train --config configs/vqvae2.py --workdir runs/vqvae2
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, vq_vae_2


def get_config():
    return vq_vae_2.default_config()


def build(config):
    return vq_vae_2.build(config, images.data(config, sources.digits))
