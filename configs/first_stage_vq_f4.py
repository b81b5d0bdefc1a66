"""A vector-quantised first stage of latent diffusion, VQ-f4, on your own images: 64x64 of 8192 codes for 256x256.

  python -m diffusion_jax.train --config configs/first_stage_vq_f4.py --workdir runs/first_stage_vq_f4 \\
    --config.data.dir=PATH --config.lpips.network=vgg16-397923af.pth --config.lpips.heads=vgg.pth

The network has 55,322,782 parameters with its codebook, the discriminator 2,765,633. As published, absolute errors
and LPIPS are averaged, and a discriminator is weighed by 0.75 from the first update on. The number of images in an
update and the rate are those of `first_stage_kl_f8`. For another size set --config.data.shape=(H,W,3), multiples of
4, of 24 at least.

Different from it: beta weighs the commitment, as VQ-VAE's authors have it, and not the codebook's term; the
discriminator normalises groups instead of batches, and its weight is that of the gradients of the update before, over
all devices. It was built at full size and traced; it was never trained with this code.
"""

from diffusion_jax.methods import pixels
from diffusion_jax.methods.autoencoders import adversarial, first_stage_vq, first_stages


def get_config():
    config = first_stages.config_256()
    config.model = first_stages.sizes_vq()
    first_stage_vq.with_commitment(config)
    return adversarial.with_lpips(adversarial.with_discriminator(config, start=0, weight=0.75))


def build(config):
    data = pixels.data(config, pixels.own_images(config))
    judgement = adversarial.perceived(config, data, adversarial.patches(config, data))
    return first_stage_vq.build(config, data, judgement=judgement)
