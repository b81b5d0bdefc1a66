"""The first stage of Stable Diffusion, KL-f8, on your own images: 32x32x4 numbers stand for 256x256 pixels.

  python -m diffusion_jax.train --config configs/first_stage_kl_f8.py --workdir runs/first_stage_kl_f8 \\
    --config.data.dir=PATH --config.lpips.network=vgg16-397923af.pth --config.lpips.heads=vgg.pth

The network has 83,653,863 parameters, the discriminator 2,765,633, and all is as published: absolute errors and
LPIPS, a rate weighed by 1e-6, and from update 50,001 on a discriminator weighed by 0.5. The published one was trained
on two GPUs with 12 images each. For another size set --config.data.shape=(H,W,3), multiples of 8, of 24 at least.

Different from it: the discriminator normalises groups instead of batches, and its weight is that of the gradients of
the update before, over all devices. It was built at full size and traced; it was never trained with this code.
`first_stage_mnist` is a small one that was.
"""

from diffusion_jax.methods import pixels
from diffusion_jax.methods.autoencoders import adversarial, first_stage_kl, first_stages


def get_config():
    config = first_stage_kl.with_rate(first_stages.config_256())
    config.model = first_stages.sizes()
    return adversarial.with_lpips(adversarial.with_discriminator(config, start=50_001))


def build(config):
    data = pixels.data(config, pixels.own_images(config))
    judgement = adversarial.perceived(config, data, adversarial.patches(config, data))
    return first_stage_kl.build(config, data, judgement=judgement)
