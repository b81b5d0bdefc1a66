"""EDM on ImageNet 64x64 by class, with ADM's U-Net: the teacher of `configs/consistency_imagenet64.py`.

  python -m diffusion_jax.train --config configs/edm_imagenet64.py --workdir runs/edm_imagenet64

295.9 million parameters, told the noise level as the published consistency models are: 250 times its logarithm. The
official values: batch 4096, learning rate 1e-4, dropout 0.1, bfloat16. The number of updates was not found in what
was read; this is ADM's. Not yet trained to its end with this code. The images are those of `configs/imagenet64.py`.
"""

from diffusion_jax.data import sources
from diffusion_jax.diffusion import parameterizations
from diffusion_jax.methods import edm, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.models import ADMUNet
from diffusion_jax.models.blocks.conditioning import LabelEmbedding

CLASSES = 1000


def get_config():
    config = pixels.config_imagenet64()
    config.train.batch_size = 4096
    config.train.steps = 540_000
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 0
    config.train.clip_norm = 0.0
    config.train.ema_decay = 0.9999432189950708
    return config


def build(config):
    data = pixels.with_labels(pixels.data(config, sources.imagenet64(config.data.dir)), CLASSES)
    model = pixels.unet(config, kind=ADMUNet, embed={"label": LabelEmbedding(CLASSES)})
    return compose(config, edm.model_of(data, model, time=parameterizations.log_250))
