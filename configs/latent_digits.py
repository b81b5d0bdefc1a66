r"""Handwritten digits in latents: diffusion of what a first stage makes of them, 4x4x2.

  python -m diffusion_jax.train --config configs/first_stage_digits.py --workdir runs/first_stage
  python -m diffusion_jax.train --config configs/latent_digits.py --workdir runs/latent \
    --config.first_stage.weights=runs/first_stage
  python -m diffusion_jax.sample --workdir runs/latent --num 64

EDM of 32 numbers in place of 64 pixels, by the digits' U-Net, 1500 updates: two minutes on two CPU cores. Images are
encoded as training goes; with --config.data.latents=DIR latents that were prepared are read. What to expect of 1000
images (`python -m experiments.digits_quality --workdir runs/latent`; of both runs the seeds 0 and 1):

  18 steps of Heun's method             FD 2.35, 1.91   nearest 1.12, 1.07
  decoded of N(0, s^2 I)                FD 70           nearest 2.25
  decoded of a Gaussian fit to latents  FD 6.9          nearest 1.44
  a scale five times too small          FD 2.29         nearest 1.11   (EDM forgives it)

beside 1.14 for the training digits. Values were chosen by the first setting that was tried.
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
