"""CIFAR-10 with a network that says v (Salimans & Ho 2022): the teacher of `configs/progressive_cifar.py`.

  python -m diffusion_jax.train --config configs/v_prediction_cifar.py --workdir runs/v_prediction_cifar

The values of the paper's model: batch 128, dropout 0.2, weight decay 0.001. The paper reports an FID of 2.75 in 8192
steps of DDIM. Its number of updates was not found in what was read; this is DDPM's. Not yet trained to its end with
this code.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import progressive
from diffusion_jax.training.optimizers import adamw, with_weight_decay


def get_config():
    config = with_weight_decay(progressive.config_cifar(), 0.001)
    config.model.dropout = 0.2
    config.train.warmup_steps = 1000
    return config


def build(config):
    data = pixels.data(config, sources.cifar10(config.data.dir))
    return compose(config, progressive.teacher(config, data, progressive.network(config))._replace(optimizer=adamw))
