"""CelebA-HQ, 256x256, unconditional (Ho et al. 2020, figure 1).

  python -m diffusion_jax.train --config configs/celeba_hq.py --workdir runs/celeba_hq

113.7M parameters; the paper prints samples and no FID. The paper's TPU v3-8 made 2.2 steps/s at batch 64: 2.6 days.
Not yet trained with this code. TFDS cannot download this set: make data256x256.tar as its catalogue says
(celeb_a_hq, manual download), put it into its `downloads/manual`, and prepare with the extra `tfds`.
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import variances
from diffusion_jax.methods import ddpm, pixels


def get_config():
    config = ddpm.with_table(pixels.config_256())
    config.train.steps = 500_000
    return config


def build(config):
    return ddpm.build(
        config,
        source=lambda split: sources.tfds_images("celeb_a_hq/256", split, config.data.dir or None, size=256),
        variance=variances.posterior,
    )
