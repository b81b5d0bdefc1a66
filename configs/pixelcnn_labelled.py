r"""A prior over the codes of `vqvae` that is told the digit: as `pixelcnn`, with guidance if wanted.

  python -m diffusion_jax.train --config configs/vqvae.py --workdir runs/vqvae
  python -m diffusion_jax.train --config configs/pixelcnn_labelled.py --workdir runs/told \
    --config.codes.run=runs/vqvae
  python -m diffusion_jax.sample --workdir runs/told --label 3,8 --guidance 1.5

A minute on two CPU cores. Expect 3.45 bits a code of the test digits, told their labels, where `pixelcnn` on the same
codes has 3.74, and a Frechet distance of 2.9 of 1000 samples (one seed).
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import guidance
from diffusion_jax.methods import guided, pixelcnn, pixels
from diffusion_jax.methods.autoencoders import images, priors, vq_vae
from diffusion_jax.models.blocks.conditioning import LabelEmbedding

CLASSES = 10


def get_config():
    return priors.with_codes(priors.config_digits(), vq_vae.default_config())


def build(config):
    data = images.data(config, sources.digits)
    stage = vq_vae.method(priors.of_section(config, "codes"), data)
    vocab, told = priors.vocab(stage), pixels.with_labels(priors.of_codes(stage, data), CLASSES)
    network = pixelcnn.network(config, vocab, embed={"label": LabelEmbedding(CLASSES + 1)})
    method = pixelcnn.method(config, told, network, vocab)
    return priors.flat(config, stage, guided.classifier_free(method, guidance.replacing(label=CLASSES), usual=1.0))
