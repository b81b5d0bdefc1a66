"""Improved DDPM's likelihood model of handwritten digits: L_vlb, at times that are drawn where it is large.

  python -m diffusion_jax.train --config configs/improved_vlb.py --workdir runs/improved_vlb
"""

from diffusion_jax import training_times
from diffusion_jax.data import sources
from diffusion_jax.recipes import ddpm, improved, pixels


def get_config():
    return ddpm.with_table(pixels.config_digits())


def build(config):
    return improved.build(
        config, source=lambda: sources.digits("train"), judge=improved.l_vlb, times=training_times.loss_aware
    )
