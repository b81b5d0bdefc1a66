"""EDM on CIFAR-10 with DDPM++ (Karras et al. 2022): the teacher of `configs/ect_cifar.py`.

  python -m diffusion_jax.train --config configs/edm_cifar.py --workdir runs/edm_cifar

55.7 million parameters, 200 million images. Papers that distil it report an FID of 2.01 to 2.04 after 35 evaluations
(Heun, 18 steps), of a model whose images were augmented; they are not here. Not yet trained to its end with this
code. The data (162 MB) is downloaded by TFDS on the first run.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import edm, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.models import DDPMpp


def get_config():
    return pixels.config_edm()


def build(config):
    data = pixels.data(config, sources.cifar10(config.data.dir))
    return compose(config, edm.model_of(data, pixels.unet(config, kind=DDPMpp)))
