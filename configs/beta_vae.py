"""A beta-VAE of handwritten digits, 8x8: a code of 10 numbers whose rate counts four times.

  python -m diffusion_jax.train --config configs/beta_vae.py --workdir runs/beta_vae

It takes about a minute of a CPU core. What to expect of the 597 test digits, pixels in [0, 1], seeds 0 and 1, by
`python -m diffusion_jax.evaluate --workdir runs/beta_vae --num 0 --codes`:

  rate, nats                            6.76 and 6.76
  ELBO, nats                            26.7 and 25.7
  reconstruction error                  0.0206 and 0.0212
  active units                          9 and 8 of 10

`python -m diffusion_jax.sample --workdir runs/beta_vae --traverse` shows it.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import beta_vae, images


def get_config():
    return beta_vae.with_beta(beta_vae.default_config())


def build(config):
    return beta_vae.build(config, images.data(config, sources.digits))
