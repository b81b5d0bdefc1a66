"""A variational autoencoder of handwritten digits, 8x8, black and white, with a Bernoulli decoder.

  python -m diffusion_jax.train --config configs/vae_binarized.py --workdir runs/vae_binarized
  python -m diffusion_jax.evaluate --workdir runs/vae_binarized --num 0 --codes --likelihood iwae

Half a minute on two CPU cores, 4000 updates. Expect of the 597 test digits (seeds 0 and 1) an evidence lower bound of
-18.0 and -18.0 nats, and -16.5 and -16.6 by 500 draws (0.372 and 0.374 bits an entry).
The frequency of each pixel alone costs 25.2.
"""

from diffusion_jax.autoencoding import laws
from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, vae


def get_config():
    return vae.default_config()


def build(config):
    return vae.build(config, images.binarized(config, sources.digits), read=laws.bernoulli)
