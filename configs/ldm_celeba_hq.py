r"""CelebA-HQ, 256x256, in the latents of a published VQ-f4 (Rombach et al. 2022, table 12).

  python -m diffusion_jax.prepare --config configs/ldm_celeba_hq.py --first-stage VQ_F4 --out latents/celeba_hq
  python -m diffusion_jax.train --config configs/ldm_celeba_hq.py --workdir runs/ldm_celeba_hq \
    --config.first_stage.weights=VQ_F4 --config.data.latents=latents/celeba_hq
  python -m diffusion_jax.sample --workdir runs/ldm_celeba_hq --sampler ddim --steps 200

VQ_F4 is a folder as diffusers has it, or latent diffusion's vq-f4 .ckpt; without prepared latents images are encoded
as training goes. Latents are what comes before the codebook, as they are; decoding begins with it. 274.1M parameters
beside the first stage's 55.3M. Expect an FID of 5.11 by the paper (200 steps of ddim). Their values: batch 48, rate
9.6e-5. Not yet trained with this code. The data is that of configs/celeba_hq.py.
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import schedules, variances
from diffusion_jax.methods import ddpm, latent_diffusion, pixels
from diffusion_jax.methods.autoencoders import first_stages
from diffusion_jax.models.unets.adm import heads_of_width
from diffusion_jax.models.unets.open import OpenUNet


def get_config():
    config = ddpm.with_table(pixels.config_256())
    config = latent_diffusion.with_first_stage(config, first_stages.sizes_vq())
    config.data.flip = False
    config.model.channels = 224
    config.model.multipliers = (1, 2, 3, 4)
    config.model.attention_levels = (1, 2, 3)
    config.train.batch_size = 48
    config.train.steps = 410_000
    config.train.learning_rate = 9.6e-5
    config.train.warmup_steps = 0
    config.train.clip_norm = 0.0
    return config


def build(config):
    def source(split):
        return sources.tfds_images("celeb_a_hq/256", split, config.data.dir or None, size=256)

    stage = latent_diffusion.vq(config, pixels.data(config, source))
    latents = latent_diffusion.prepared_or_encoded(config, stage)
    model = pixels.unet(config, kind=OpenUNet, heads=heads_of_width(32), out_channels=stage.shape[-1])
    betas = schedules.quadratic_betas(config.diffusion.timesteps, 0.0015, 0.0195)
    method = ddpm.model_of(config, latents.data, model, betas, variances.posterior)
    return latent_diffusion.compose(config, stage, latents, method, latent_diffusion.as_they_are)
