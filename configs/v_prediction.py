"""Handwritten digits by a network that predicts v, on a cosine schedule: what `configs/progressive.py` distils.

  python -m diffusion_jax.train --config configs/v_prediction.py --workdir runs/v_prediction

3000 steps: three minutes of processor time. Expect a Fréchet distance to the training digits of 0.69 from DDIM in
50 steps, and of 149, 19.9, 3.84 and 1.46 in 1, 2, 4 and 8 (`python -m experiments.tables.few_steps`, 1000 images,
one run).
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.few_step import progressive


def get_config():
    return pixels.config_digits()


def build(config):
    return progressive.build_teacher(config, pixels.data(config, sources.digits), pixels.unet(config))
