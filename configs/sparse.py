"""A sparse autoencoder of handwritten digits, 8x8: 100 sigmoid units that are seldom on.

  python -m diffusion_jax.train --config configs/sparse.py --workdir runs/sparse

It takes about a minute of a CPU core. What to expect of the 597 test digits, pixels in [0, 1], seeds 0 and 1, by
`python -m diffusion_jax.evaluate --workdir runs/sparse --num 0 --codes`:

  mean activation                       0.071 and 0.071; 0.05 is wanted
  reconstruction error                  0.0034 and 0.0034

`python -m diffusion_jax.sample --workdir runs/sparse --filters` shows it. 100 units are more than the 64 pixels, so
their filters look like noise: nothing decays the weights of corners that are always black.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, sparse


def get_config():
    return sparse.default_config()


def build(config):
    return sparse.build(config, images.data(config, sources.digits))
