"""Super-resolution of handwritten digits, 4x4 to 8x8, told the digit too: the second stage of a cascade.

  python -m diffusion_jax.train --config configs/super_resolution_digits.py --workdir runs/super_resolution_digits
  python -m diffusion_jax.sample --workdir runs/super_resolution_digits --num 36 --condition noise_level=0,0.3,1

Two minutes of CPU time, 1500 steps. Small images are the means of 2x2 pixels, and get noise of a level that is told:
with `noise_level=0,0.3,1` each is enlarged at three of them, side by side. A file of small images of one's own is
`--condition low.npz`, with the array "low_res" [N, 4, 4, 1], uint8 or in [-1, 1]; the label is then withheld, unless
`--label` says it. Of 597 test digits made small and enlarged again with their label, ancestral in 200 steps, one run
(FD and agreement as of configs/guided.py; "again": how far means of 2x2 of the sample lie from those of the digit):

  noise_level          0     0.1     0.3     0.6       1
  again, of 2       0.22    0.22    0.28    0.33    0.35
  FD                1.34    1.32    1.63    1.86    1.73
  agree            98.7%   98.0%   98.3%   97.5%   97.3%

A level of 1 tells nothing but the label. So little training leaves the network loose: at level 0 the means could be
met exactly.
"""

from diffusion_jax.config.values import Config
from diffusion_jax.data import conditions, sources
from diffusion_jax.diffusion import guidance
from diffusion_jax.methods import guided, pixels, super_resolution
from diffusion_jax.models.blocks.conditioning import LabelEmbedding, NumberEmbedding

CLASSES = 10


def get_config():
    config = super_resolution.with_low(pixels.config_digits(), (4, 4))
    config.diffusion = Config(**guided.guidance_values(usual=1.0))
    config.train.steps = 1500
    return config


def build(config):
    images = pixels.with_labels(pixels.data(config, source=sources.digits), CLASSES)
    images = images._replace(sample_condition=conditions.labels(CLASSES, null=CLASSES))
    data = super_resolution.told_low(config, images, untold={"label": [CLASSES]})
    told = {"label": LabelEmbedding(CLASSES + 1), "noise_level": NumberEmbedding(1000)}
    method = super_resolution.method(data, pixels.unet(config, embed=told))
    null = guidance.replacing(label=CLASSES)
    method = guided.classifier_free(method, null, config.diffusion.withheld, config.diffusion.guidance)
    return super_resolution.compose_told(config, method)
