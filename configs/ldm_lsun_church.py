r"""LSUN Church, 256x256, in the latents of a published KL-f8 (Rombach et al. 2022, table 12).

  python -m diffusion_jax.prepare --config configs/ldm_lsun_church.py --first-stage KL_F8 --out latents/church
  python -m diffusion_jax.train --config configs/ldm_lsun_church.py --workdir runs/ldm_church \
    --config.first_stage.weights=KL_F8 --config.data.latents=latents/church
  python -m diffusion_jax.sample --workdir runs/ldm_church --sampler ddim --steps 200 --eta 1

KL_F8 is a folder as diffusers has it, or latent diffusion's kl-f8 .ckpt; without prepared latents images are encoded
as training goes. 295.0M parameters beside the first stage's 83.7M. Expect an FID of 4.02 by the paper (200 steps of
ddim, eta 1). Their values: batch 96, rate 5e-5 after 10,000 updates, absolute error, latents scaled by one number to
unit variance. Not yet trained with this code. TFDS prepares the data with the extra `tfds` and tensorflow-io.
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import losses, schedules, variances
from diffusion_jax.methods import ddpm, latent_diffusion, pixels
from diffusion_jax.methods.autoencoders import first_stages
from diffusion_jax.models.unets.adm import ADMUNet, heads_always


def get_config():
    config = ddpm.with_table(pixels.config_256())
    config = latent_diffusion.with_first_stage(config, first_stages.sizes())
    config.model.channels = 192
    config.model.multipliers = (1, 2, 2, 4, 4)
    config.model.attention_levels = (0, 1, 2, 3)
    config.train.batch_size = 96
    config.train.steps = 500_000
    config.train.learning_rate = 5e-5
    config.train.warmup_steps = 10_000
    config.train.clip_norm = 0.0
    return config


def build(config):
    images = pixels.data(config, sources.lsun("church_outdoor", config.data.dir or None))
    stage = latent_diffusion.kl(config, images)
    latents = latent_diffusion.prepared_or_encoded(config, stage)
    model = pixels.unet(config, kind=ADMUNet, heads=heads_always(8), out_channels=stage.shape[-1])
    betas = schedules.quadratic_betas(config.diffusion.timesteps, 0.0015, 0.0155)
    method = ddpm.model_of(config, latents.data, model, betas, variances.posterior, error=losses.absolute_error)
    return latent_diffusion.compose(config, stage, latents, method)
