"""A variational autoencoder of MNIST, 28x28, black and white by chance: a code of 50, two layers of 200 each way.

python -m diffusion_jax.train --config configs/vae_mnist.py --workdir runs/vae_mnist
"""

from diffusion_jax.autoencoding import laws
from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, vae


def get_config():
    config = images.with_perceptron(images.config_mnist(), codes=50)
    config.model.hidden = (200, 200)
    return config


def build(config):
    data = images.binarized_by_chance(config, sources.mnist(config.data.dir))
    return vae.build(config, data, read=laws.bernoulli)
