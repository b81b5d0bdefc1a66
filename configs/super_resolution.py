"""MNIST, 8x8 to 16x16: the second stage of a cascade, told a small digit and how noisy that is.

  python -m diffusion_jax.train --config configs/super_resolution.py --workdir runs/super_resolution
  python -m diffusion_jax.sample --workdir runs/super_resolution --num 36 --condition noise_level=0,0.3,0.6
  python -m diffusion_jax.sample --workdir runs/super_resolution --num 36 --condition low.npz

MNIST through TFDS, padded to 32x32, of which blocks of 2x2 are the pixels; the small images are means of 2x2 of
those. 2000 steps of a perceptron, 200 seconds of CPU time; it was trained on 4000 of the digits. low.npz holds
"low_res" [N, 8, 8, 1], uint8 or in [-1, 1]. Of 1000 test digits made small and enlarged again, DDIM in 25 steps, one
run ("again": how far the means of 2x2 of the sample lie from those of the digit; digits and thicknesses that
classifiers read, which read 0.930 and 0.848 of the test digits themselves; FD as of experiments/captioned_quality.py,
of training digits 1.5):

  noise_level          0     0.1     0.3     0.6
  again, of 2       0.15    0.16    0.24    0.33
  digit            0.735   0.692   0.440   0.178
  thickness        0.639   0.627   0.523   0.410
  FD                 7.5     7.8    11.0    15.3

So short a training gives blurred digits, and much of what the small ones say is lost.
"""

from diffusion_jax.methods import captioned, pixels, super_resolution


def get_config():
    return super_resolution.config_mnist()


def build(config):
    images = pixels.data(config, captioned.mnist(config.data.dir))
    method = super_resolution.mnist(config, super_resolution.told_low(config, images))
    return super_resolution.compose_told(config, method)
