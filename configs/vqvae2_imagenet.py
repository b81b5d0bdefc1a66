"""VQ-VAE-2 of ImageNet at 256x256 (Razavi et al. 2019, section 4 and appendix A).

  python -m diffusion_jax.train --config configs/vqvae2_imagenet.py --workdir runs/vqvae2_imagenet

64x64 indices, and 32x32 above them, each of 512 vectors of 64 numbers. The paper's values, as
recalled: 128 features, 64 in the
residual blocks, commitment .25, moving averages of decay .99, batches of 128, 2.2 million updates; it reports a mean
squared error of 0.0050. Priors over the codes are trained apart.

The paper does not say the learning rate, nor the range of the pixels that .25 is of. Here they are those of the
public implementation (github.com/rosinality/vq-vae-2-pytorch): 3e-4, and [-1, 1], for which .25 / 4 stands in [0, 1].
Dead codes are revived, which neither says of itself. The images are TFDS's imagenet2012, cut and shrunk; its archives
have to be fetched by hand. Not yet trained to the end with this code.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import images, vq_vae, vq_vae_2
from diffusion_jax.methods.compose import with_dir


def get_config():
    config = vq_vae.with_codebook(vq_vae.with_network(with_dir(images.config_digits())), size=512)
    config = vq_vae_2.with_levels(config)
    config.data.shape = (256, 256, 3)
    config.data.threads = 32
    config.model.residual = 64
    config.model.beta = 0.25 / 4
    config.train.batch_size = 128
    config.train.steps = 2_207_444
    config.train.steps_per_call = 1
    config.train.learning_rate = 3e-4
    config.train.warmup_steps = 0
    config.train.clip_norm = 0.0
    config.train.ema_decay = 0.9999
    config.log.checkpoint_every = 10_000
    config.log.sample_every = 10_000
    return config


def build(config):
    names = {"train": "train", "test": "validation"}  # this set calls it so

    def source(split):
        return sources.tfds_images("imagenet2012", names[split], config.data.dir or None, size=256)

    return vq_vae_2.build(config, images.data(config, source))
