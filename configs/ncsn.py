"""NCSN on handwritten digits: scores at many noise levels, annealed Langevin dynamics.

  python -m diffusion_jax.train --config configs/ncsn.py --workdir runs/ncsn

Two to three minutes on two CPU cores, 3000 steps. Expect a Fréchet distance of 2.0 and nearest 1.12 from
annealed Langevin dynamics (50 levels of ten steps, two minutes for 1000 images), 2.0 and 1.22 from --sampler
predictor_corrector, beside 1.1 for the training digits themselves and 12.1 for a Gaussian fit to the pixels
(`python -m experiments.digits_quality --workdir runs/ncsn`, 1000 images, one run).
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import ncsn, pixels

SIGMA_MAX = 9.5  # the largest distance between two digits is 9.4


def get_config():
    return pixels.config_digits()


def build(config):
    return ncsn.build(config, source=sources.digits, sigma_min=0.02, sigma_max=SIGMA_MAX, levels=50)
