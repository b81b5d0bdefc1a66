"""A small CLIP of MNIST and its captions, "a thick seven", which configs/unclip_prior.py and its decoder hold.

  python -m diffusion_jax.train --config configs/clip.py --workdir runs/clip

MNIST through TFDS, padded to 32x32, and moved by up to three pixels in training. A text is a digit and how thick it
is, thirds of the ink within the digit. The loss compares every picture with all texts of the batch, over all devices.
Four minutes on 2 busy CPU cores, 2000 steps, on 4000 of the digits: the loss falls to 1.93 ("right" rises to 0.90
of a batch; captions repeat in one, so neither ends at 0). Of 1000 test digits 0.904 are nearest to their own of
the 30 captions, 0.944 to one of their digit, 0.938 to one of their thickness; of the training digits 0.920. Without
moving, 1000 steps: 0.811 of the test digits and 0.998 of the training digits.
"""

from diffusion_jax.config import values
from diffusion_jax.data.pipeline import random_shift
from diffusion_jax.methods import captioned, clip
from diffusion_jax.methods.compose import without_chain


def get_config():
    config = captioned.config_mnist((32, 32, 1))
    config.data.shift = values.whole_number(3, "pixels that a picture is moved by at most, in training", 0, 1000)
    config.clip = clip.sizes()
    config.train.steps = 2000
    config.train.decay_steps = 1900
    config.log.sample_every = 0
    return without_chain(config)


def build(config):
    shape = tuple(config.data.shape)
    data = captioned.data(shape, captioned.mnist(config.data.dir))
    data = data._replace(transforms=(random_shift(config.data.shift),))
    return clip.build(config, data, clip.network(config.clip, shape))
