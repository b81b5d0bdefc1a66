"""Handwritten digits by a network that predicts x0 and the noise: what `configs/progressive_x0_and_eps.py` distils.

  python -m diffusion_jax.train --config configs/x0_and_eps.py --workdir runs/x0_and_eps

3000 steps. Its estimate of x0 is of both, and the loss is that of v (a weight of SNR + 1). Fréchet distances to the
training digits from DDIM are 146, 18.0, 3.71, 1.57 and 0.79 in 1, 2, 4, 8 and 50 steps, about those of
`configs/v_prediction.py` (`python -m experiments.tables.few_steps`, 1000 images, one run).
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.few_step import progressive


def get_config():
    return pixels.config_digits()


def build(config):
    return progressive.build_teacher(
        config,
        pixels.data(config, sources.digits),
        pixels.unet(config, outputs=2),
        parameterization=progressive.X0_AND_EPS,
        loss=progressive.merged(),
    )
