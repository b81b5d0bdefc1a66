"""A contractive autoencoder of handwritten digits, 8x8: 100 units that change little where a digit does.

  python -m diffusion_jax.train --config configs/contractive.py --workdir runs/contractive

It takes about a minute of a CPU core. What to expect of the 597 test digits, pixels in [0, 1], seeds 0 and 1, by
`python -m diffusion_jax.evaluate --workdir runs/contractive --num 0 --codes`:

  squared norm of the Jacobian          3.66 and 3.71
  reconstruction error                  0.0036 and 0.0036

`python -m diffusion_jax.sample --workdir runs/contractive --filters` shows it. Filters are local contrasts, and
grey where digits never are.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import contractive, images


def get_config():
    return contractive.default_config()


def build(config):
    return contractive.build(config, images.data(config, sources.digits))
