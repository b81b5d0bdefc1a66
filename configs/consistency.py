"""Consistency distillation on handwritten digits: one step, or a few, from the EDM model of `configs/edm.py`.

  python -m diffusion_jax.train --config configs/edm.py --workdir runs/edm
  python -m diffusion_jax.train --config configs/consistency.py --workdir runs/consistency \\
    --config.distill.teacher=runs/edm
  python -m diffusion_jax.sample --workdir runs/consistency --steps 2

3000 steps. Fréchet distances to the training digits (`python -m experiments.tables.few_steps`, 1000 images, one run):

  steps               1      2      4      8     18
  student          1.60   1.60   1.89   1.71
  teacher, Heun     148    201   14.8   1.17   0.95

The distance of two estimates is their mean squared difference, or LPIPS, for which larger images are the place:
--config.lpips.network=vgg16-397923af.pth --config.lpips.heads=vgg.pth (docs/how_to/few_steps.md).
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import perceptual, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency

SIGMA_DATA = 0.75  # the teacher's


def get_config():
    config = perceptual.with_lpips(consistency.with_target(pixels.config_digits()))
    config.train.learning_rate = 3e-4
    return config


def build(config):
    data, model = pixels.data(config, sources.digits), pixels.unet(config)
    distance, held = perceptual.either(config, data)
    return compose(config, consistency.distilled(config, data, model, SIGMA_DATA, distance, held))
