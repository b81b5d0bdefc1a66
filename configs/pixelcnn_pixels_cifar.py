"""CIFAR-10, 32x32, sub-pixel by sub-pixel: Gated PixelCNN (van den Oord et al. 2016b), 256 levels of each colour.

  python -m diffusion_jax.train --config configs/pixelcnn_pixels_cifar.py --workdir runs/pixelcnn_cifar
  python -m diffusion_jax.evaluate --workdir runs/pixelcnn_cifar --num 0 --likelihood exact

Published: 3.03 bits a dimension on the test images. 20 layers of 384 features, windows of 5x5, batches of 128 and
200,000 updates are recalled from the paper's ImageNet experiment; its sizes for CIFAR-10 were not found. Not found
either, and chosen here: a first window of 7x7 (as PixelCNN's), 1152 features before the logits, a vector of 16
features for each level in place of its brightness, and Adam with 2e-4. Not yet trained with this code. Drawing takes
3072 calls of the network, however many images are drawn together. TFDS downloads the data (162 MB) on the first run.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixelcnn, pixels
from diffusion_jax.methods.compose import base_config, with_dir

LEVELS = 256


def get_config():
    return pixelcnn.with_network(with_dir(pixels.with_shape(base_config(), (32, 32, 3))))


def build(config):
    data = pixels.levels(config, sources.cifar10(config.data.dir), LEVELS)
    return pixelcnn.build(config, data, pixelcnn.network(config, LEVELS), LEVELS)
