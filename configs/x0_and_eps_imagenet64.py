"""ImageNet 64x64 by a network that predicts x0 and the noise: the teacher of `configs/progressive_imagenet64.py`.

  python -m diffusion_jax.train --config configs/x0_and_eps_imagenet64.py --workdir runs/x0_and_eps_imagenet64

295.9 million parameters, the official values (Salimans & Ho 2022): batch 2048, learning rate 3e-4, dropout 0.1, and
errors in x0 weighted by the truncated SNR. Its number of updates was not found in what was read; this is ADM's. Not
yet trained to its end with this code. The images are those of `configs/imagenet64.py`.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.few_step import progressive
from diffusion_jax.models import ADMUNet
from diffusion_jax.models.blocks.conditioning import LabelEmbedding

CLASSES = 1000


def get_config():
    config = pixels.config_imagenet64()
    config.train.steps = 540_000
    config.train.learning_rate = 3e-4
    config.train.warmup_steps = 1000
    return config


def build(config):
    data = pixels.with_labels(pixels.data(config, sources.imagenet64(config.data.dir)), CLASSES)
    model = pixels.unet(config, outputs=2, kind=ADMUNet, embed={"label": LabelEmbedding(CLASSES)})
    loss = progressive.merged(progressive.TRUNCATED_SNR)
    return progressive.build_teacher(config, data, model, parameterization=progressive.X0_AND_EPS, loss=loss)
