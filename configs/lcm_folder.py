"""Latent consistency distillation of a published U-Net on a table of betas: it draws your images in 1 to 8 steps.

  python -m diffusion_jax.train --config configs/lcm_folder.py --workdir runs/lcm_folder \\
    --config.distill.teacher=google/ddpm-ema-cat-256 --config.data.dir=PATH
  python -m diffusion_jax.sample --workdir runs/lcm_folder --steps 4
  python -m diffusion_jax.export --workdir runs/lcm_folder --to lcm

The teacher is a folder of diffusers with a UNet2DModel, or a name on the hub; the student is the same U-Net, and what
is exported has an LCMScheduler. Set --config.data.shape=(H,W,C) to what the teacher was trained on. The values are a
start and were tried on small folders alone.
"""

from diffusion_jax.methods import folders, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import folders as students
from diffusion_jax.methods.few_step import lcm


def get_config():
    config = lcm.with_entries(folders.without_network(pixels.default_config()))
    config.data.shape = (256, 256, 3)
    config.train.batch_size = 16
    config.train.learning_rate = 1e-5
    config.train.warmup_steps = 500
    config.train.steps = 20_000
    config.train.ema_decay = 0.999
    return config


def build(config):
    return compose(config, students.latent(config, pixels.data(config, pixels.own_images(config))))
