"""Handwritten digits, pixel by pixel: a Gated PixelCNN on 17 levels of grey, told the label.

python -m diffusion_jax.train --config configs/pixelcnn_pixels.py --workdir runs/pixelcnn
python -m diffusion_jax.evaluate --workdir runs/pixelcnn --num 0 --likelihood exact
python -m diffusion_jax.sample --workdir runs/pixelcnn --num 100 --label 3,8 --film
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import guidance
from diffusion_jax.methods import guided, pixelcnn, pixels
from diffusion_jax.methods.compose import base_config, compose
from diffusion_jax.models.blocks.conditioning import LabelEmbedding

CLASSES, LEVELS = 10, 17


def get_config():
    return pixelcnn.with_small_network(pixels.with_shape(base_config(), (8, 8, 1)))


def build(config):
    data = pixels.with_labels(pixels.levels(config, sources.digits, LEVELS), CLASSES)
    model = pixelcnn.network(config, LEVELS, embed={"label": LabelEmbedding(CLASSES + 1)})
    method = pixelcnn.method(config, data, model, LEVELS)
    return compose(config, guided.classifier_free(method, guidance.replacing(label=CLASSES), usual=1.0))
