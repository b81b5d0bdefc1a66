"""Improved consistency training that starts from a published consistency U-Net, or an EDM one, on your own images.

  python -m diffusion_jax.train --config configs/consistency_training_folder.py --workdir runs/mine \\
    --config.start.folder=openai/diffusers-cd_cat256_lpips --config.data.dir=PATH
  python -m diffusion_jax.sample --workdir runs/mine --steps 2
  python -m diffusion_jax.export --workdir runs/mine --to consistency

The folder is as of `configs/consistency_folder.py`. The grid has 161 points at first and 1281 at last: a network that
is consistent already needs no coarse one. The values are a start and were tried on small folders alone.
"""

from diffusion_jax.diffusion.few_step import stages
from diffusion_jax.methods import folders, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency
from diffusion_jax.methods.few_step import folders as students


def get_config():
    config = folders.with_start(pixels.default_config())
    config.data.shape = (256, 256, 3)
    config.train.batch_size = 32
    config.train.learning_rate = 1e-5
    config.train.steps = 40_000
    config.train.ema_decay = 0.999
    config.log.preview_steps = 0
    return config


def build(config):
    data = pixels.data(config, pixels.own_images(config))
    start = folders.opened(config.start.folder, data, "--config.start.folder")
    growth = stages.doubling(160, 1280, config.train.steps)
    student = consistency.improved(growth=growth, **students.in_levels(start))
    return compose(config, students.exported(student, start))
