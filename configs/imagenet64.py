"""ImageNet 64x64 by class: ADM (Dhariwal & Nichol 2021), with classifier-free guidance.

  python -m diffusion_jax.train --config configs/imagenet64.py --workdir runs/imagenet64
  python -m diffusion_jax.sample --workdir runs/imagenet64 --num 100 --label 207 --guidance 1.5

295.9 million parameters, the values of ADM's table 11: batch 2048, 540k steps, dropout 0.1, learning rate 3e-4, and
bfloat16. The paper reports an FID of 2.07 after 250 steps of the chain, without guidance. Not trained to its end with
this code. `wrap=nn.remat` in the network below would trade time for memory.

The images are TFDS's imagenet_resized/64x64 (some 13 GB), which has the labels of ILSVRC 2012 in its own order.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import guided, pixels
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.models.unets.adm import ADMUNet

CLASSES = 1000


def get_config():
    config = guided.with_guidance(pixels.config_imagenet64())
    config.diffusion.guidance = 1.5
    config.train.steps = 540_000
    config.train.learning_rate = 3e-4
    return config


def build(config):
    data = pixels.with_labels(pixels.data(config, sources.imagenet64(config.data.dir)), CLASSES)
    embed = {"label": LabelEmbedding(CLASSES + 1)}
    return guided.build(config, data, CLASSES, pixels.unet(config, outputs=2, kind=ADMUNet, embed=embed))
