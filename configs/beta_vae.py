"""A beta-VAE of handwritten digits, 8x8.

python -m diffusion_jax.train --config configs/beta_vae.py --workdir runs/beta_vae
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import beta_vae, images


def get_config():
    return beta_vae.with_beta(beta_vae.default_config())


def build(config):
    return beta_vae.build(config, images.data(config, sources.digits))
