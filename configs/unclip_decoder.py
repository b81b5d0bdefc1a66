"""TODO

python -m diffusion_jax.train --config configs/unclip_decoder.py --workdir runs/unclip_decoder
"""

from diffusion_jax.methods import unclip


def get_config():
    return unclip.config_decoder()


def build(config):
    return unclip.decoder(config)
