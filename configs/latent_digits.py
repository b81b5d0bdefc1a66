r"""Handwritten digits in latents: diffusion of what a first stage makes of them, 4x4x2.

  python -m diffusion_jax.train --config configs/first_stage_digits.py --workdir runs/first_stage
  python -m diffusion_jax.train --config configs/latent_digits.py --workdir runs/latent \
    --config.first_stage.weights=runs/first_stage
  python -m diffusion_jax.sample --workdir runs/latent --num 64

"""

from diffusion_jax.data import sources
from diffusion_jax.methods import edm, latent_diffusion, pixels
from diffusion_jax.methods.autoencoders import first_stage_kl


def get_config():
    config = latent_diffusion.with_first_stage(pixels.config_digits(), first_stage_kl.default_config().model)
    config.train.batch_size = 64
    config.train.steps = 1500
    config.log.preview_steps = 18
    return config


def build(config):
    stage = latent_diffusion.kl(config, pixels.data(config, sources.digits))
    latents = latent_diffusion.prepared_or_encoded(config, stage)
    model = pixels.unet(config, out_channels=stage.shape[-1])
    return latent_diffusion.compose(config, stage, latents, edm.model_of(latents.data, model, sigma_data=1.0))
