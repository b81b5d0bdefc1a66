"""A beta-VAE of handwritten digits, 8x8, whose rate is led to 12 nats.

  python -m diffusion_jax.train --config configs/beta_vae_capacity.py --workdir runs/beta_vae_capacity

It takes about a minute of a CPU core. What to expect of the 597 test digits, pixels in [0, 1], seeds 5 and 6, by
`python -m diffusion_jax.evaluate --workdir runs/beta_vae_capacity --num 0 --codes`:

  rate, nats                            12.06 and 12.07
  ELBO, nats                            33.3 and 32.7
  reconstruction error                  0.0132 and 0.0135
  active units                          10 and 10 of 10

`python -m diffusion_jax.sample --workdir runs/beta_vae_capacity --traverse` shows it.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import beta_vae, images


def get_config():
    return beta_vae.with_capacity(beta_vae.default_config())


def build(config):
    return beta_vae.build_capacity(config, images.data(config, sources.digits))
