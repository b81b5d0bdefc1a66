"""Handwritten digits by a network that says v, on a cosine schedule: what `configs/progressive.py` distils.

python -m diffusion_jax.train --config configs/v_prediction.py --workdir runs/v_prediction
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.few_step import progressive


def get_config():
    return pixels.config_digits()


def build(config):
    return progressive.build_teacher(config, pixels.data(config, sources.digits), pixels.unet(config))
