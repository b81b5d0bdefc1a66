"""Imagen in small: MNIST of 32x32 pixels from captions, by a base of 8x8 and a network that enlarges its pictures.

  python -m diffusion_jax.train --config configs/imagen_super_resolution.py --workdir runs/imagen_super_resolution \\
    --config.base.run=runs/imagen_base
  python -m diffusion_jax.sample --workdir runs/imagen_super_resolution --num 30 --prompt "a thick seven"
  python -m diffusion_jax.sample --workdir runs/imagen_super_resolution --num 30 --condition noise_level=0,0.1,0.3

It holds the run of configs/imagen_base.py, which is trained first, with its encoder of texts. 800 steps, six minutes
of CPU time, on 4000 of the digits. Of 300 pictures, 25 steps of both chains, classifiers read 0.990 of the digits and
0.873 of the thicknesses at noise level 0, 0.977 and 0.867 at 0.1 (of test digits 0.926 and 0.814). More figures are
in docs/measured/gallery.md.
"""

from diffusion_jax.methods import imagen_super_resolution


def get_config():
    return imagen_super_resolution.config_mnist()


def build(config):
    return imagen_super_resolution.build(config)
