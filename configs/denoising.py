"""A denoising autoencoder of handwritten digits, 8x8: normal noise is taken off.

  python -m diffusion_jax.train --config configs/denoising.py --workdir runs/denoising

It takes about a minute of a CPU core. What to expect of the 597 test digits, pixels in [0, 1], seeds 0 and 1, by
`python -m diffusion_jax.evaluate --workdir runs/denoising --num 0 --codes`:

  error of the restored                 0.0171 and 0.0169; noise alone is 0.0878
  reconstruction error, without noise   0.0088 and 0.0089

`python -m diffusion_jax.sample --workdir runs/denoising --reconstruct` shows each digit,
what was shown of it, and what was made of that: digits that can be read, a little blurred.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import denoising, images


def get_config():
    return denoising.with_noise(denoising.default_config())


def build(config):
    return denoising.build(config, images.data(config, sources.digits), denoising.noise(config))
