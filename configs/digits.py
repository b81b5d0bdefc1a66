"""Handwritten digits, 8x8: the whole of DDPM in a few minutes on a laptop.

  python -m diffusion_jax.train --config configs/digits.py --workdir runs/digits

scikit-learn's 1797 digits (1200 of them for training; they come with the package, nothing is downloaded).

On two CPU cores this takes about two minutes, start-up, compilation and previews included (30 steps a second);
64 images by `python -m diffusion_jax.sample --workdir runs/digits` take another half. What to expect at the end:

  loss, mean of 50 steps                              0.086
  `python -m experiments.digits_quality --workdir runs/digits`, 1000 images against the test digits:
    all 1000 steps of the chain (some five minutes)   FD 2.5, nearest 1.15
    --sampler ddim, 50 steps (half a minute)          FD 2.9, nearest 1.24

beside an FD of 1.1 for the training digits themselves, 6.5 for noisy ones and 12.1 for a Gaussian fit to the
pixels. Nearest above 1 means no sign of reciting the training images. Most pictures can be read as digits, some
cannot. (The values below were chosen by the same FD, one training run each; differences of half a point are
noise.)
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import ddpm, pixels


def get_config():
    return ddpm.with_table(pixels.config_digits())


def build(config):
    return ddpm.build(config, source=sources.digits)
