"""A beta-TCVAE of handwritten digits, 8x8: the total correlation of a code of 10 numbers counts four times.

  python -m diffusion_jax.train --config configs/beta_tc.py --workdir runs/beta_tc

It takes about a minute of a CPU core. What to expect of the 597 test digits, pixels in [0, 1], seeds 0 and 1, by
`python -m diffusion_jax.evaluate --workdir runs/beta_tc --num 0 --codes`:

  rate, nats                            8.41 and 8.38
  ELBO, nats                            30.1 and 29.4
  reconstruction error                  0.0174 and 0.0179
  total correlation, nats               1.65 and 1.79, estimated in training

`python -m diffusion_jax.sample --workdir runs/beta_tc --traverse` shows it.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import beta_vae, images


def get_config():
    return beta_vae.with_references(beta_vae.with_beta(beta_vae.default_config()))


def build(config):
    return beta_vae.build_beta_tc(config, images.data(config, sources.digits))
