r"""ImageNet 256x256 by class, read by cross-attention, in the latents of VQ-f8 (Rombach et al. 2022, table 13).

  python -m diffusion_jax.prepare --config configs/ldm_imagenet.py --first-stage VQ_F8 --out latents/vq_f8
  python -m diffusion_jax.train --config configs/ldm_imagenet.py --workdir runs/ldm_imagenet \
    --config.first_stage.weights=VQ_F8 --config.data.latents=latents/vq_f8
  python -m diffusion_jax.sample --workdir runs/ldm_imagenet --sampler ddim --steps 200 --num 16 --label 207

VQ_F8 is latent diffusion's vq-f8 .ckpt, or a folder as diffusers has it. The label is one token of 512 features.
395.5M parameters beside the first stage's 67.7M. Expect an FID of 15.82 by the paper, without guidance in 200 steps.
The noise and the rate, 1e-6 times the batch, are the authors'; batch and number of updates are table 13's as they are
recalled. A tenth of the labels are withheld here, which they do not do. Not yet trained with this code. The data is
that of configs/imagenet256_dit.py.
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import schedules, variances
from diffusion_jax.methods import ddpm, guided, latent_diffusion, pixels
from diffusion_jax.methods.autoencoders import first_stages
from diffusion_jax.models.unets.adm import heads_of_width
from diffusion_jax.models.unets.label_tokens import LabelTokens
from diffusion_jax.models.unets.text_unet import TextUNet

CLASSES = 1000


def get_config():
    config = guided.with_guidance(pixels.config_256())
    config = latent_diffusion.with_first_stage(config, first_stages.sizes_vq(128, (1, 2, 2, 4), 4, 16_384))
    config.first_stage.attention_levels = (3,)
    config.diffusion.guidance = 1.0
    config.model.channels = 256
    config.model.multipliers = (1, 2, 4)
    config.model.attention_levels = (0, 1, 2)
    config.train.batch_size = 64
    config.train.steps = 2_000_000
    config.train.learning_rate = 6.4e-5
    config.train.warmup_steps = 0
    config.train.clip_norm = 0.0
    return config


def build(config):
    images = pixels.data(config, sources.imagenet256(config.data.dir))
    stage = latent_diffusion.vq(config, images)
    latents = latent_diffusion.prepared_or_encoded(config, stage)
    data = pixels.with_labels(latents.data, CLASSES)
    unet = pixels.unet(config, kind=TextUNet, heads=heads_of_width(32), out_channels=stage.shape[-1])
    betas = schedules.quadratic_betas(config.diffusion.timesteps, 0.0015, 0.0195)
    model = LabelTokens(unet, CLASSES + 1)
    method = guided.of_plain(config, ddpm.model_of(config, data, model, betas, variances.posterior), CLASSES)
    return latent_diffusion.compose(config, stage, latents, method, latent_diffusion.as_they_are)
