"""Cold diffusion on handwritten digits: pooled to one pixel, and rebuilt without fresh noise.

  python -m diffusion_jax.train --config configs/cold.py --workdir runs/cold

Two to three minutes on two CPU cores, 3000 steps. Expect a Fréchet distance of 4.4 and nearest 1.06 in 50
steps, beside 1.1 for the training digits themselves and 12.1 for a Gaussian fit to the pixels (`python -m
experiments.digits_quality --workdir runs/cold`, 1000 images, one run). All that is random in a picture is its
mean grey and noise of 0.2, drawn once.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import cold, pixels
from diffusion_jax.methods.blur import mean_colours


def get_config():
    return pixels.config_digits()


def build(config):
    digits = sources.digits("train")
    return cold.build(config, source=sources.digits, colours=mean_colours(digits))
