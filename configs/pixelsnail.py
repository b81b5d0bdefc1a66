"""A prior over the codes of `vqvae` with attention: a PixelSNAIL of 4x4 indices, whose draws are decoded to digits.

  python -m diffusion_jax.train --config configs/vqvae.py --workdir runs/vqvae
  python -m diffusion_jax.train --config configs/pixelsnail.py --workdir runs/snail --config.codes.run=runs/vqvae

One to two minutes on two CPU cores. Expect 3.76 bits a code of the test digits (one seed), as many as of `pixelcnn`:
on 4x4 positions there is little that attention sees and convolutions do not.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixelcnn, pixelsnail
from diffusion_jax.methods.autoencoders import images, priors, vq_vae


def get_config():
    return priors.with_codes(pixelsnail.with_network(priors.config_digits()), vq_vae.default_config())


def build(config):
    data = images.data(config, sources.digits)
    stage = vq_vae.method(priors.of_section(config, "codes"), data)
    vocab = priors.vocab(stage)
    method = pixelcnn.method(config, priors.of_codes(stage, data), pixelsnail.network(config, vocab), vocab)
    return priors.flat(config, stage, method)
