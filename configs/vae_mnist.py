"""A variational autoencoder of MNIST, 28x28, black and white by chance: a code of 50, two layers of 200 each way.

python -m diffusion_jax.train --config configs/vae_mnist.py --workdir runs/vae_mnist

60,000 digits through TFDS (12 MB; preparing them needs the extra `tfds`). Training sees another draw of black and
white each time, with the greys as probabilities; the test digits are drawn once. On two CPU cores some 25 updates a
second. After 4000 of the 100,000 updates, on 4000 of the digits, the evidence lower bound of 1000 others was -107.4
nats; as recalled, published models of this size reach -87. Not yet trained to the end with this code.
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
