"""A variational autoencoder of handwritten digits, 8x8, black and white, with a Bernoulli decoder.

python -m diffusion_jax.train --config configs/vae_binarized.py --workdir runs/vae_binarized
"""

from diffusion_jax.autoencoding import laws
from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, vae


def get_config():
    return vae.default_config()


def build(config):
    return vae.build(config, images.binarized(config, sources.digits), read=laws.bernoulli)
