"""MNIST, 8x8 to 32x32: the second stage of a cascade, told a small digit and how noisy that is.

  python -m diffusion_jax.train --config configs/super_resolution.py --workdir runs/super_resolution
  python -m diffusion_jax.sample --workdir runs/super_resolution --num 36 --condition noise_level=0,0.3,0.6
  python -m diffusion_jax.sample --workdir runs/super_resolution --num 36 --condition low.npz

MNIST through TFDS, padded to 32x32; the small images are means of 4x4 of those. 2500 steps of a U-Net that sees
blocks of 4x4 pixels as one, about ten minutes of CPU time, on 4000 of the digits. low.npz holds "low_res", [N, 8,
8, 1], uint8 or in [-1, 1]. Of 500 test digits made small and enlarged again, DDIM in 25 steps, one run ("again":
how far means of 4x4 of the sample lie from those of the digit, root mean square, of 2; digits and thicknesses that
classifiers read, which read 0.926 and 0.814 of the test digits; FD as of experiments/captioned_quality.py, of
training digits 2.2):

  noise_level          0     0.1     0.3     0.6
  again, of 2      0.075   0.109   0.236   0.355
  digit            0.886   0.834   0.530   0.160
  thickness        0.768   0.714   0.520   0.380
  FD                 2.4     2.7     5.5     8.2

The network says x0: as a prediction of v, 2000 steps left noise on black (again 0.15, digit 0.744 at level 0).
"""

from diffusion_jax.methods import captioned, pixels, super_resolution


def get_config():
    return super_resolution.config_mnist()


def build(config):
    images = pixels.data(config, captioned.mnist(config.data.dir))
    method = super_resolution.mnist(config, super_resolution.told_low(config, images))
    return super_resolution.compose_told(config, method)
