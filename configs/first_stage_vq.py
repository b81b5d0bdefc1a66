"""A quantised first stage of handwritten digits: 4x4 vectors of 3 numbers, each one of 64, stand for 8x8 pixels.

python -m diffusion_jax.train --config configs/first_stage_vq.py --workdir runs/first_stage_vq
python -m diffusion_jax.sample --workdir runs/first_stage_vq --codes --num 16
python -m diffusion_jax.evaluate --workdir runs/first_stage_vq --num 0 --codes

"""

from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.autoencoders import first_stage_vq


def get_config():
    config = first_stage_vq.default_config()
    config.train.steps = 1500
    return config


def build(config):
    return first_stage_vq.build(config, pixels.data(config, sources.digits))
