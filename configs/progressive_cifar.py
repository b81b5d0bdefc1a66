"""Progressive distillation on CIFAR-10 (Salimans & Ho 2022): students of 4096, 2048, ..., 2 steps and 1.

  python -m diffusion_jax.train --config configs/v_prediction_cifar.py --workdir runs/v_prediction_cifar
  python -m diffusion_jax.distill --config configs/progressive_cifar.py --teacher runs/v_prediction_cifar \\
    --workdir runs/progressive_cifar

The paper's values: 50k updates a student, 100k of the last two, batch 128. It reports FIDs of 9.12, 4.51, 3.00 and
2.57 in 1, 2, 4 and 8 steps. Not yet trained to its end with this code.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.few_step import progressive

STAGES = tuple(2**k for k in range(12, -1, -1))


def get_config():
    config = progressive.with_steps(progressive.config_cifar())
    config.distill.stages = STAGES
    config.distill.updates = tuple(100_000 if steps <= 2 else 50_000 for steps in STAGES)
    config.train.steps = 50_000
    config.train.learning_rate = 5e-5
    return config


def build(config):
    data = pixels.data(config, sources.cifar10(config.data.dir))
    return progressive.build(config, data, progressive.network(config))
