"""Cold diffusion on handwritten digits: pooled to one pixel, and rebuilt without fresh noise.

  python -m diffusion_jax.train --config configs/cold.py --workdir runs/cold
"""

from diffusion_jax.data import sources
from diffusion_jax.recipes import cold, pixels
from diffusion_jax.recipes.blur import mean_colours


def get_config():
    return pixels.config_digits()


def build(config):
    digits = sources.digits("train")
    return cold.build(config, source=lambda: digits, colours=mean_colours(digits))
