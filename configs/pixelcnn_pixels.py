"""Handwritten digits, pixel by pixel: a Gated PixelCNN on 17 levels of grey, told the label.

  python -m diffusion_jax.train --config configs/pixelcnn_pixels.py --workdir runs/pixelcnn
  python -m diffusion_jax.evaluate --workdir runs/pixelcnn --num 0 --likelihood exact
  python -m diffusion_jax.sample --workdir runs/pixelcnn --num 100 --label 3,8 --film
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import guidance
from diffusion_jax.methods import guided, pixelcnn, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.models.blocks.conditioning import LabelEmbedding

CLASSES, LEVELS = 10, 17


def get_config():
    config = pixelcnn.default_config((8, 8, 1))
    config.model.update(features=32, layers=5, side=3, first_side=5, token_features=8, head_features=64, dropout=0.2)
    config.data.threads = 1
    config.train.update(batch_size=32, steps=3000, steps_per_call=10, learning_rate=1e-3, warmup_steps=100)
    config.train.weight_decay = 1.0
    config.train.ema_decay = 0.997
    config.log.update(every=50, checkpoint_every=1000, sample_every=1000, samples=36)
    return config


def build(config):
    data = pixels.with_labels(pixels.levels(config, sources.digits, LEVELS), CLASSES)
    model = pixelcnn.network(config, LEVELS, embed={"label": LabelEmbedding(CLASSES + 1)})
    method = pixelcnn.method(config, data, model, LEVELS)
    return compose(config, guided.classifier_free(method, guidance.replacing(label=CLASSES), usual=1.0))
