"""A variational autoencoder of handwritten digits, 8x8, with one learned variance.

  python -m diffusion_jax.train --config configs/vae.py --workdir runs/vae
  python -m diffusion_jax.sample --workdir runs/vae --traverse --num 1
  python -m diffusion_jax.evaluate --workdir runs/vae --num 0 --codes --likelihood iwae

Half a minute on two CPU cores, 4000 updates. Expect of the 597 test digits, in [0, 1] (seeds 0 and 1):

  evidence lower bound                        38.3, 38.5 nats (a density, so it is above 0)
  importance-weighted bound, 500 draws        -0.985, -0.991 bits an entry: 43.7, 44.0 nats
  probabilistic PCA of as many numbers        23.1 nats
  mean squared error of a pixel               0.0093, 0.0093
  Frechet distance of 1000 samples            8.8, 9.1 (1.1 for the training digits, 12.1 for a Gaussian fit)
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, vae


def get_config():
    return vae.default_config()


def build(config):
    return vae.build(config, images.data(config, sources.digits))
