"""A first stage of handwritten digits, for latent diffusion: latents of 4x4x2 numbers stand for 8x8 pixels.

  python -m diffusion_jax.train --config configs/first_stage_digits.py --workdir runs/first_stage_digits
  python -m diffusion_jax.sample --workdir runs/first_stage_digits --reconstruct
  python -m diffusion_jax.evaluate --workdir runs/first_stage_digits --num 0 --codes

Absolute errors and a small rate train it, without a discriminator. 1500 updates take 2.5 minutes of CPU time. What
to expect of the 597 test digits (seeds 0 and 1):

  mean squared error of a pixel in [0, 1]    0.0020, 0.0045 (the variance is 0.142)
  PSNR                                       27.8, 24.2 dB
  rate                                       152, 86 nats
  standard deviation of the latents          1.25, 1.30

The seed 1 hardly uses one of the two channels. With --config.model.latent=4 --config.rate.beta=0.01 both seeds agree:
0.0012, 0.0009, and 29.9, 31.1 dB.

It draws nothing: what is decoded of normal numbers is noise.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.autoencoders import first_stage_kl


def get_config():
    return first_stage_kl.default_config()


def build(config):
    return first_stage_kl.build(config, pixels.data(config, sources.digits))
