"""A classifier of noisy digits, to guide configs/digits.py, which was never told a label.

  python -m diffusion_jax.train --config configs/classifier.py --workdir runs/classifier
  python -m diffusion_jax.sample --workdir runs/digits --classifier runs/classifier --guidance 2 --num 100 --label 3,8

Half a minute on two CPU cores, 1500 steps; the loss, a cross-entropy in nats over all noise levels, is then at 1.6,
beside ln 10 = 2.3 for knowing nothing. Of 500 digits that it guides (DDIM, 50 steps) a classifier that never saw
noise agrees with 52 % of the labels at guidance 1, FD 3.99, and with 90 % at 3, FD 2.63.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import classifier, ddpm, pixels
from diffusion_jax.models.judges.classifier import Classifier

CLASSES = 10


def get_config():
    config = ddpm.with_table(pixels.config_digits())
    config.train.steps = 1500
    config.model.dropout = 0.1
    return config


def build(config):
    data = pixels.with_labels(pixels.data(config, source=sources.digits), CLASSES)
    return classifier.build(config, data, Classifier(pixels.unet(config), CLASSES))
