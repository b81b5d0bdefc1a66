"""Handwritten digits, 8x8: the whole of DDPM in a few minutes on a laptop.

  python -m diffusion_jax.train --config configs/digits.py --workdir runs/digits

scikit-learn's 1797 digits (1200 of them for training; they come with the package, nothing is downloaded).
"""

from diffusion_jax.data import sources
from diffusion_jax.recipes import ddpm


def get_config():
    config = ddpm.default_config()
    config.data.shape = (8, 8, 1)
    config.data.flip = False  # a mirrored 2 is not a 2
    config.data.threads = 1
    # On a CPU almost all the time goes into convolutions at 8x8; a third level or attention there buys little.
    config.model.channels = 32
    config.model.multipliers = (1, 2)
    config.model.blocks = 1
    config.model.attention_levels = ()  # the middle of the network, at 4x4, has it always
    config.model.dropout = 0.0
    config.model.groups = 8
    config.train.batch_size = 32
    config.train.steps = 3000
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 100
    config.train.ema_decay = 0.997
    config.log.every = 50
    config.log.checkpoint_every = 1000
    config.log.sample_every = 1000
    config.log.samples = 36
    config.log.preview_steps = 50
    return config


def build(config):
    return ddpm.build(config, source=lambda: sources.digits("train"))
