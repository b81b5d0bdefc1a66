"""EDM on CIFAR-10 with NCSN++ (Karras et al. 2022): the teacher of `configs/consistency_cifar.py`.

  python -m diffusion_jax.train --config configs/edm_cifar_ncsnpp.py --workdir runs/edm_cifar_ncsnpp

56.4 million parameters, with the values that consistency models' authors trained their teacher with (Song et al.
2023): 400k updates of 512 images. Not yet trained to its end with this code. The data (162 MB) is downloaded by TFDS
on the first run.
"""

from diffusion_jax.data import sources
from diffusion_jax.methods import edm, pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.models import ResidualNCSNpp


def get_config():
    config = pixels.config_edm()
    config.train.steps = 400_000
    return config


def build(config):
    data = pixels.data(config, sources.cifar10(config.data.dir))
    return compose(config, edm.model_of(data, pixels.unet(config, kind=ResidualNCSNpp)))
