"""A denoising autoencoder of handwritten digits, 8x8: pixels that are made black are found again.

  python -m diffusion_jax.train --config configs/denoising_masking.py --workdir runs/denoising_masking

It takes about a minute of a CPU core. What to expect of the 597 test digits, pixels in [0, 1], seeds 0 and 1, by
`python -m diffusion_jax.evaluate --workdir runs/denoising_masking --num 0 --codes`:

  error of the restored                 0.0147 and 0.0147; of the masked digits 0.0703
  reconstruction error, without masks   0.0079 and 0.0080

`python -m diffusion_jax.sample --workdir runs/denoising_masking --reconstruct` shows it. Black is a value of these
images, so inverted digits have another optimum (`corruptions.masked`).
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import denoising, images


def get_config():
    return denoising.with_masks(denoising.default_config())


def build(config):
    return denoising.build(config, images.data(config, sources.digits), denoising.masks(config))
