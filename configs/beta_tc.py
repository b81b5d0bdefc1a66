"""A beta-TCVAE of handwritten digits, 8x8: the numbers of a code become independent.

python -m diffusion_jax.train --config configs/beta_tc.py --workdir runs/beta_tc
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import beta_vae, images


def get_config():
    return beta_vae.with_references(beta_vae.with_beta(beta_vae.default_config()))


def build(config):
    return beta_vae.build_beta_tc(config, images.data(config, sources.digits))
