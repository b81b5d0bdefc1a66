"""CIFAR-10, 32x32, unconditional: DDPM's headline experiment (Ho et al. 2020, table 1).

  python -m diffusion_jax.train --config configs/cifar.py --workdir runs/cifar

Expect FID 3.17 against the training set after 800k steps (the minimum over training, as published), loss about
0.03. The paper's TPU v3-8 made 21 steps/s: 10.6 hours. Not yet trained to the end with this code.
The data (162 MB) is downloaded by TFDS on the first run.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import ddpm


def get_config():
    return ddpm.default_config()


def build(config):
    return ddpm.build(config, source=sources.cifar10(config.data.dir))
