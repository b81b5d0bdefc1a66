r"""A prior over the lower codes of `vqvae2`, told the upper ones: with `pixelcnn_top` it draws digits.

  python -m diffusion_jax.train --config configs/vqvae2.py --workdir runs/vqvae2
  python -m diffusion_jax.train --config configs/pixelcnn_top.py --workdir runs/top --config.codes.run=runs/vqvae2
  python -m diffusion_jax.train --config configs/pixelcnn_bottom.py --workdir runs/bottom \
    --config.codes.run=runs/vqvae2 --config.above.run=runs/top

A minute on two CPU cores. Expect 3.64 bits a lower code of the test digits, and a Frechet distance of 5.7 of 1000
samples (one seed).
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixelcnn
from diffusion_jax.methods.autoencoders import images, priors, vq_vae_2


def get_config():
    return priors.with_above(priors.with_codes(priors.config_digits(), vq_vae_2.default_config()))


def build(config):
    data = images.data(config, sources.digits)
    stage = vq_vae_2.method(priors.of_section(config, "codes"), data)
    vocab = priors.vocab(stage)

    def method(section, level, **told):
        network = pixelcnn.network(priors.of_section(config, section), vocab, **told)
        return pixelcnn.method(config, priors.of_codes(stage, data, level), network, vocab)

    return priors.lower(config, stage, method("model", "bottom", maps=("top",)), above=method("above", "top"))
