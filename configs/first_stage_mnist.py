"""A small first stage of MNIST, 28x28, with a discriminator of patches: latents of 7x7x4 numbers.

  python -m diffusion_jax.train --config configs/first_stage_mnist.py --workdir runs/first_stage_mnist
  python -m diffusion_jax.sample --workdir runs/first_stage_mnist --reconstruct
  python -m diffusion_jax.evaluate --workdir runs/first_stage_mnist --num 0 --codes

1000 updates take 4.4 minutes of CPU time. After them, without LPIPS, on 4000 of the digits (seed 0; 1000 others):

  discriminator                  MSE of a pixel in [0, 1]    PSNR       rate
  from update 300 on (default)   0.0027                      26.2 dB    391 nats
  from the first update on       0.0028                      26.0 dB    407 nats
  none                           0.0023                      26.9 dB    413 nats

So early it only costs: its loss is still 1, that of one that knows nothing, and its weight is at its upper end.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.autoencoders import adversarial, first_stage_kl, first_stages, images


def get_config():
    config = first_stage_kl.with_rate(images.config_mnist(), 0.01)
    config.model = first_stages.sizes(channels=16, multipliers=(1, 2, 2), latent=4)
    config.model.blocks = 1
    config.model.groups = 8
    config.train.batch_size = 32
    config.train.steps = 1000
    config.train.steps_per_call = 1  # inside a loop XLA computes the discriminator seven times slower on CPUs
    config.train.ema_decay = 0.99
    config.log.every = 100
    config.log.checkpoint_every = 1000
    config.log.sample_every = 1000
    adversarial.with_discriminator(config, start=300, halvings=2)
    config.discriminator.features = 16
    config.discriminator.groups = 8
    return adversarial.with_lpips(config)


def build(config):
    data = pixels.data(config, sources.mnist(config.data.dir))
    judgement = adversarial.perceived(config, data, adversarial.patches(config, data))
    return first_stage_kl.build(config, data, judgement=judgement)
