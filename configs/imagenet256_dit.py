"""Latents of ImageNet 256x256 by class: DiT-XL/2 (Peebles & Xie 2023).

  python -m diffusion_jax.train --config configs/imagenet256_dit.py --workdir runs/dit --config.data.dir=LATENTS
  python -m diffusion_jax.sample --workdir runs/dit --num 16 --label 207 --guidance 4

LATENTS is a folder that `python -m diffusion_jax.prepare` made of images of 256x256 with labels from 0 to 999 and
Stable Diffusion's first stage, mirror images too: with the folder train and, to evaluate, test. Samples are latents
(samples.npz) times 0.18215, to be decoded by it.

674.8 million parameters, the paper's values: batch 256, learning rate 1e-4, no warm-up, mirror images, DDPM's linear
table, learned variance, 7M steps for its best model: an FID of 2.27 at guidance 1.5, 9.62 without. Guidance is
on the first three of the four channels in the paper's code and on all here (`guidance.channels` has the other).
Gradients are clipped to a norm of 1, which the paper does not do. bfloat16; every block is recomputed in the backward
pass (nn.remat), for memory. Not trained to its end with this code.
"""

from flax import linen as nn

from diffusion_jax.autoencoding.latents import Scaling
from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.data import sources
from diffusion_jax.diffusion import schedules
from diffusion_jax.methods import guided, pixels
from diffusion_jax.methods.compose import base_config, with_dir
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.models.transformers import dit

CLASSES = 1000
SCALING = Scaling(0.18215)  # of Stable Diffusion's first stage


def get_config():
    config = guided.with_guidance(pixels.with_flip(pixels.with_shape(with_dir(base_config()), (32, 32, 4))))
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
    data = pixels.latents(config, lambda split: sources.latents(f"{config.data.dir}/{split}"), SCALING)
    data = pixels.with_labels(data, CLASSES)
    model = dit.DiT(
        patch=config.model.patch,
        features=config.model.features,
        layers=config.model.layers,
        heads=config.model.heads,
        out_channels=2 * config.data.shape[-1],
        embed={"label": LabelEmbedding(CLASSES + 1, nn.initializers.normal(0.02))},
        wrap=nn.remat,
        **pixels.computed_by(config),
    )
    return guided.build(config, data, CLASSES, model, schedules.linear_betas, transforms=())
