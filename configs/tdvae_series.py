"""TD-VAE on series whose density is known.

python -m diffusion_jax.train --config configs/tdvae_series.py --workdir runs/tdvae_series
"""

from diffusion_jax.data import sequences
from diffusion_jax.methods.autoencoders import td_vae


def get_config():
    return td_vae.config_series()


def build(config):
    source = sequences.splits(sequences.turning(), config.data.length)
    return td_vae.build_series(config, td_vae.series(config, source, numbers=1))
