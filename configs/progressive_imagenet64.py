"""Progressive distillation on ImageNet 64x64 (Salimans & Ho 2022): students of 512, 256, ..., 2 steps and 1.

  python -m diffusion_jax.train --config configs/x0_and_eps_imagenet64.py --workdir runs/x0_and_eps_imagenet64
  python -m diffusion_jax.distill --config configs/progressive_imagenet64.py --teacher runs/x0_and_eps_imagenet64 \\
    --workdir runs/progressive_imagenet64
  python -m diffusion_jax.sample --workdir runs/progressive_imagenet64/steps_4 --num 100 --label 207

The official values: 50k updates a student, 100k of the last two, batch 2048. Not yet trained to its end with this
code.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.few_step import progressive
from diffusion_jax.models import ADMUNet
from diffusion_jax.models.blocks.conditioning import LabelEmbedding

CLASSES = 1000
STAGES = tuple(2**k for k in range(9, -1, -1))


def get_config():
    config = progressive.with_steps(pixels.config_imagenet64())
    config.distill.stages = STAGES
    config.distill.updates = tuple(100_000 if steps <= 2 else 50_000 for steps in STAGES)
    config.model.dropout = 0.0
    config.train.steps = 50_000
    config.train.learning_rate = 1e-4
    return config


def build(config):
    data = pixels.with_labels(pixels.data(config, sources.imagenet64(config.data.dir)), CLASSES)
    model = pixels.unet(config, outputs=2, kind=ADMUNet, embed={"label": LabelEmbedding(CLASSES)})
    return progressive.build(config, data, model, parameterization=progressive.X0_AND_EPS)
