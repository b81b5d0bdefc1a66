"""Consistency distillation of a published EDM U-Net: it draws your images in one step, or a few.

  python -m diffusion_jax.train --config configs/consistency_folder.py --workdir runs/consistency_folder \\
    --config.distill.teacher=FOLDER --config.data.dir=PATH
  python -m diffusion_jax.sample --workdir runs/consistency_folder --steps 2
  python -m diffusion_jax.export --workdir runs/consistency_folder --to consistency

The teacher is a folder of diffusers with a UNet2DModel that was trained as EDM. With a CMStochasticIterativeScheduler
it is told 250 log(level), as OpenAI's are; the export has that scheduler. With an EDMEulerScheduler it is told
log(level) / 4. A U-Net of labels takes data with labels: give `pixels.own_images` another source below.

Optimiser, points and decay are those of Song et al. 2023 for 256x256 (appendix C), with a smaller batch. The config
was tried on small folders alone.
"""

from diffusion_jax.methods import folders, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency
from diffusion_jax.methods.few_step import folders as students


def get_config():
    config = consistency.with_target(folders.without_network(pixels.default_config()))
    config.data.shape = (256, 256, 3)
    config.distill.points = 40
    config.train.batch_size = 32
    config.train.learning_rate = 1e-5
    config.train.steps = 600_000
    config.train.ema_decay = 0.999943
    return config


def build(config):
    data = pixels.data(config, pixels.own_images(config))
    teacher = folders.opened(config.distill.teacher, data, "--config.distill.teacher")
    student = consistency.distilled(config, **students.in_levels(teacher))
    return compose(config, students.exported(student, teacher))
