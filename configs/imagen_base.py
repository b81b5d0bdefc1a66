"""Imagen's base in small: MNIST of 8x8 pixels from captions, "a thick seven".

  python -m diffusion_jax.train --config configs/imagen_base.py --workdir runs/imagen_base
  python -m diffusion_jax.sample --workdir runs/imagen_base --num 30 --prompt "a thick seven"

The encoder of the captions, a small T5, is trained with the base, a U-Net that attends to the encoded words and hears
their mean. The caption is withheld of 10 % of the examples: they are told the empty text. By default the 30 captions
come in turn. 2000 steps, six CPU minutes, on 4000 of the digits. Of 300 pictures, DDIM in 25 steps, classifiers read
(of test digits 0.929 and 0.872; FD of as many training digits is 2.3; `python -m experiments.imagen_quality --workdir
runs/imagen_super_resolution --each 10`):

  guidance               1     1.5       3     1.5       3       3
  largest threshold      1       1       1     1.5     1.5    1000
  digit              0.927   1.000   1.000   0.950   0.940   0.933
  thickness          0.873   0.970   0.967   0.873   0.803   0.787
  FD                   2.6     3.2     9.7     9.1    23.1    23.2

So estimates are clipped: dynamic thresholding (--config.text.threshold above 1) makes digits of 8x8 worse.
"""

from diffusion_jax.methods import captioned, imagen


def get_config():
    return imagen.config_mnist()


def build(config):
    return imagen.build(config, captioned.mnist(config.data.dir, shrink=4))
