"""A prior over the upper codes of `vqvae2`: a Gated PixelCNN of 2x2 indices.

  python -m diffusion_jax.train --config configs/vqvae2.py --workdir runs/vqvae2
  python -m diffusion_jax.train --config configs/pixelcnn_top.py --workdir runs/top --config.codes.run=runs/vqvae2

Less than a minute on two CPU cores. Expect 3.10 bits a code of the test digits (one seed). Its samples are the
indices, as levels of grey: `pixelcnn_bottom` makes pictures.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixelcnn
from diffusion_jax.methods.autoencoders import images, priors, vq_vae_2


def get_config():
    return priors.with_codes(priors.config_digits(), vq_vae_2.default_config())


def build(config):
    data = images.data(config, sources.digits)
    stage = vq_vae_2.method(priors.of_section(config, "codes"), data)
    vocab = priors.vocab(stage)
    method = pixelcnn.method(config, priors.of_codes(stage, data, "top"), pixelcnn.network(config, vocab), vocab)
    return priors.upper(config, stage, method)
