"""TODO

python -m diffusion_jax.train --config configs/unclip_prior.py --workdir runs/unclip_prior
"""

from diffusion_jax.methods import unclip


def get_config():
    return unclip.config_prior()


def build(config):
    return unclip.prior(config)
