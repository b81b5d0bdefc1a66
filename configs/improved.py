"""Improved DDPM on handwritten digits: the cosine table, a learned variance, L_hybrid.

  python -m diffusion_jax.train --config configs/improved.py --workdir runs/improved
"""

from diffusion_jax.data import sources
from diffusion_jax.recipes import ddpm, improved, pixels


def get_config():
    return ddpm.with_table(pixels.config_digits())


def build(config):
    return improved.build(config, source=lambda: sources.digits("train"))
