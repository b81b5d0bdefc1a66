"""Easy consistency tuning on CIFAR-10 (Geng et al. 2024), from the EDM model of `configs/edm_cifar.py`.

  python -m diffusion_jax.train --config configs/edm_cifar.py --workdir runs/edm_cifar
  python -m diffusion_jax.train --config configs/ect_cifar.py --workdir runs/ect_cifar \\
    --config.distill.teacher=runs/edm_cifar

The official values: eight stages, RAdam, batch 128, 400k updates. The paper reports FIDs of 3.60 in one step and 2.11
in two. Not yet trained to its end with this code.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency, teachers
from diffusion_jax.models import DDPMpp


def get_config():
    config = teachers.with_teacher(pixels.config_edm())
    config.model.dropout = 0.2
    config.train.batch_size = 128
    config.train.steps = 400_000
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 0
    config.train.ema_decay = 0.9999
    config.log.preview_steps = 0
    return config


def build(config):
    data = pixels.data(config, sources.cifar10(config.data.dir))
    return compose(config, consistency.tuned(config, data, pixels.unet(config, kind=DDPMpp), config.train.steps // 8))
