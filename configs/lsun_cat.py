"""LSUN Cat, 256x256, unconditional (Ho et al. 2020, table 3).

  python -m diffusion_jax.train --config configs/lsun_cat.py --workdir runs/lsun_cat

Expect FID 19.75. The paper's TPU v3-8 made 2.2 steps/s at batch 64: 9.5 days.
Not yet trained with this code. TFDS prepares it with the extra `tfds` and `pip install tensorflow-io`.
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import variances
from diffusion_jax.methods import ddpm, pixels


def get_config():
    config = ddpm.with_table(pixels.config_256())
    config.train.steps = 1_800_000
    config.data.flip = False  # as in the paper's script for this set
    return config


def build(config):
    source = sources.lsun("cat", config.data.dir or None)
    return ddpm.build(config, source, variance=variances.posterior)
