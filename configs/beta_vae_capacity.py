"""A beta-VAE of handwritten digits, 8x8, whose rate is led to 12 nats.

python -m diffusion_jax.train --config configs/beta_vae_capacity.py --workdir runs/beta_vae_capacity
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import beta_vae, images


def get_config():
    return beta_vae.with_capacity(beta_vae.default_config())


def build(config):
    return beta_vae.build_capacity(config, images.data(config, sources.digits))
