"""Consistency distillation on CIFAR-10 (Song et al. 2023), from the EDM model of `configs/edm_cifar_ncsnpp.py`.

  python -m diffusion_jax.train --config configs/edm_cifar_ncsnpp.py --workdir runs/edm_cifar_ncsnpp
  python -m diffusion_jax.train --config configs/consistency_cifar.py --workdir runs/consistency_cifar \\
    --config.distill.teacher=runs/edm_cifar_ncsnpp

The official values: Heun's method on 18 points, no target network, RAdam, batch 512, 800k updates. The paper reports
FIDs of 3.55 in one step and 2.93 in two with LPIPS as the distance, for which --config.lpips.network and
--config.lpips.heads name its weights (docs/how_to/few_steps.md); it is l2 without them. Not yet trained to its end
with this code.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import perceptual, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import consistency
from diffusion_jax.models import ResidualNCSNpp


def get_config():
    config = perceptual.with_lpips(consistency.with_target(pixels.config_edm()))
    config.distill.target_decay = 0.0
    config.model.dropout = 0.0
    config.train.steps = 800_000
    config.train.learning_rate = 4e-4
    config.train.warmup_steps = 0
    config.train.ema_decay = 0.9999
    return config


def build(config):
    data = pixels.data(config, sources.cifar10(config.data.dir))
    model = pixels.unet(config, kind=ResidualNCSNpp)
    distance, held = perceptual.either(config, data)
    return compose(config, consistency.distilled(config, data, model, distance=distance, held=held))
