"""VQ-VAE of CIFAR-10, with the values of its authors' example (Sonnet's vqvae_example).

  python -m diffusion_jax.train --config configs/vqvae_cifar.py --workdir runs/vqvae_cifar

64 indices (8x8) of 512 vectors of 64 numbers stand for 32x32 pixels; the network has 662,723 parameters. As recalled,
the example has batches of 32, Adam at 3e-4, 10,000 updates and moving averages of decay .99, and divides the squared
error by the variance of the pixels, 0.0633; here the commitment is multiplied by it.

Different from it: counts start at 1 instead of 0, codes that count less than 0.1 are revived, and images lie in
[0, 1] instead of [-.5, .5]. The paper's own CIFAR-10 experiment had ten codebooks, which this is not. Not yet
trained to the end with this code.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, vq_vae
from diffusion_jax.methods.compose import with_dir

VARIANCE = 0.0633  # of all pixels, in [0, 1]


def get_config():
    config = vq_vae.with_codebook(vq_vae.with_network(with_dir(images.config_digits())), size=512)
    config.data.shape = (32, 32, 3)
    config.data.threads = 8
    config.model.beta = 0.25 * VARIANCE
    config.model.revived_below = 0.1
    config.train.batch_size = 32
    config.train.steps = 10_000
    config.train.steps_per_call = 1
    config.train.learning_rate = 3e-4
    config.train.warmup_steps = 0
    config.train.clip_norm = 0.0
    config.train.ema_decay = 0.999
    return config


def build(config):
    return vq_vae.build(config, images.data(config, sources.cifar10(config.data.dir)))
