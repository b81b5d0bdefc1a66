"""Class-conditional CIFAR-10: Improved DDPM's network and learned variance, with labels and guidance.

  python -m diffusion_jax.train --config configs/guided_cifar.py --workdir runs/guided_cifar
  python -m diffusion_jax.sample --workdir runs/guided_cifar --num 100 --label 3 --guidance 1.5

52.6 million parameters, the values of Improved DDPM's CIFAR-10 experiment (Nichol & Dhariwal 2021, appendix A): batch
128, 500k steps, dropout 0.3. The paper reports FIDs of 2.9 to 3.2 without labels. Not trained to its end with this
code. The data (162 MB) is downloaded by TFDS on the first run.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import guided, pixels
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.models.unets.adm import ImprovedUNet

CLASSES = 10


def get_config():
    config = guided.with_guidance(pixels.default_config())
    config.diffusion.guidance = 1.5
    config.model.blocks = 3
    config.model.attention_levels = (1, 2)
    config.model.dropout = 0.3
    config.train.steps = 500_000
    config.train.learning_rate = 1e-4
    config.train.warmup_steps = 1000
    config.log.samples = 100
    return config


def build(config):
    data = pixels.with_labels(pixels.data(config, sources.cifar10(config.data.dir)), CLASSES)
    embed = {"label": LabelEmbedding(CLASSES + 1)}
    return guided.build(config, data, CLASSES, pixels.unet(config, outputs=2, kind=ImprovedUNet, embed=embed))
