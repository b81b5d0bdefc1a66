"""A k-sparse autoencoder of handwritten digits, 8x8: 3 of 100 units make a digit.

  python -m diffusion_jax.train --config configs/ksparse.py --workdir runs/ksparse

It takes about a minute of a CPU core. What to expect of the 597 test digits, pixels in [0, 1], seeds 0 and 1, by
`python -m diffusion_jax.evaluate --workdir runs/ksparse --num 0 --codes`:

  reconstruction error                  0.0210 and 0.0227
  units in use                          50 and 37 of 100

`python -m diffusion_jax.sample --workdir runs/ksparse --filters` shows it. Filters of units in use are strokes; the
others never won a place and are the noise that they began as.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, k_sparse


def get_config():
    return k_sparse.default_config()


def build(config):
    return k_sparse.build(config, images.data(config, sources.digits))
