"""TD-VAE on digits that move.

python -m diffusion_jax.train --config configs/tdvae.py --workdir runs/tdvae
"""

from diffusion_jax.data import sequences, sources
from diffusion_jax.methods.autoencoders import td_vae


def get_config():
    return td_vae.config_digits()


def build(config):
    def source(split):
        return sequences.moving(sources.digits(split), config.data.length, copies=16)

    return td_vae.build_frames(config, td_vae.frames(config, source, (8, 8, 1)))
