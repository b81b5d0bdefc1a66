"""Handwritten digits, 8x8: the whole of DDPM in a few minutes on a laptop.

  python -m diffusion_jax.train --config configs/digits.py --workdir runs/digits

scikit-learn's 1797 digits (1200 of them for training; they come with the package, nothing is downloaded).

On two CPU cores this takes about two minutes, start-up, compilation and previews included (30 steps a second);
64 images by `python -m diffusion_jax.sample --workdir runs/digits` take another half. What to expect at the end:

  loss, mean of 50 steps                              0.085 (0.094 at step 1000)
  `python -m experiments.digits_quality --workdir runs/digits --seed 1`, 1000 images against the test digits:
    all 1000 steps of the chain (some five minutes)   FD 2.8, nearest 1.15
    --sampler ddim, 50 steps (half a minute)          FD 1.8, nearest 1.23

beside an FD of 1.1 for the training digits themselves, 6.5 for noisy ones and 12.1 for a Gaussian fit to the
pixels. Nearest above 1 means no sign of reciting the training images. Most pictures can be read as digits, some
cannot. (The values below were chosen by the same FD, with images of seed 0; one training run each.)
"""

from diffusion_jax.data import sources
from diffusion_jax.recipes import ddpm


def get_config():
    config = ddpm.default_config()
    config.data.shape = (8, 8, 1)
    config.data.flip = False  # a mirrored 2 is not a 2
    config.data.threads = 1
    # A third level with attention costs 1.7 times the time a step, and after 1000 steps was no better for it.
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
