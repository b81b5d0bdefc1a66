r"""ImageNet 256x256 by class, in the latents of Stable Diffusion's first stage: DiT-XL/2 (Peebles & Xie 2023).

  python -m diffusion_jax.prepare --config configs/imagenet256_dit.py --first-stage stabilityai/sd-vae-ft-ema \
    --out latents/imagenet256
  python -m diffusion_jax.train --config configs/imagenet256_dit.py --workdir runs/dit \
    --config.first_stage.weights=stabilityai/sd-vae-ft-ema --config.data.latents=latents/imagenet256
  python -m diffusion_jax.sample --workdir runs/dit --num 16 --label 207 --guidance 4

674.8 million parameters beside the first stage's 83.7; the paper's values: batch 256, learning rate 1e-4, no warm-up,
latents of images and of their mirrors times 0.18215, DDPM's linear table, learned variance, 7M steps for its best
model: an FID of 2.27 at guidance 1.5, 9.62 without. In the paper's code guidance is on the first three of the four
channels, and on all here (`guidance.channels` has the other). Gradients are clipped to a norm of 1, which the paper
does not do. bfloat16; every block is recomputed in the backward pass (nn.remat), for memory. Prepared latents of the
1,281,167 images are 42 GB. Not trained to its end with this code. ImageNet is TFDS's imagenet2012, which is prepared
by hand.
"""

from flax import linen as nn

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.data import sources
from diffusion_jax.diffusion import schedules
from diffusion_jax.methods import guided, latent_diffusion, pixels
from diffusion_jax.methods.autoencoders import first_stages
from diffusion_jax.methods.compose import base_config, with_dir
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.models.transformers import dit

CLASSES = 1000


def get_config():
    config = guided.with_guidance(pixels.with_shape(with_dir(base_config()), (256, 256, 3)))
    config = latent_diffusion.with_first_stage(config, first_stages.sizes())
    config.data.flip = values.flag(True, "whether training images are mirrored at random")
    config.diffusion.guidance = 1.5
    config.model = Config(
        patch=values.count(2, "side of the squares that are a token each", 256),
        features=values.count(1152, "features of a token, a multiple of 4 and of heads", 65_536, least=4),
        layers=values.count(28, "blocks of the transformer", 256),
        heads=values.count(16, "heads of attention", 1024),
        **pixels.computing(),
    )
    config.model.bfloat16 = True
    config.train.batch_size = 256
    config.train.steps = 400_000
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 0
    config.log.samples = 16
    return config


def build(config):
    images = pixels.data(config, sources.imagenet256(config.data.dir))
    stage = latent_diffusion.kl(config, images)
    latents = latent_diffusion.prepared_or_encoded(config, stage)
    model = dit.DiT(
        patch=config.model.patch,
        features=config.model.features,
        layers=config.model.layers,
        heads=config.model.heads,
        out_channels=2 * stage.shape[-1],
        embed={"label": LabelEmbedding(CLASSES + 1, nn.initializers.normal(0.02))},
        wrap=nn.remat,
        **pixels.computed_by(config),
    )
    data = pixels.with_labels(latents.data, CLASSES)
    method = guided.method(config, data, CLASSES, model, schedules.linear_betas, transforms=())
    return latent_diffusion.compose(config, stage, latents, method, latent_diffusion.as_published)
