"""Masked diffusion on handwritten digits: every pixel is one of 17 tokens of grey, hidden and guessed.

  python -m diffusion_jax.train --config configs/masked.py --workdir runs/masked
"""

import jax
import jax.numpy as jnp

from diffusion_jax import views
from diffusion_jax.data import sources, toys
from diffusion_jax.models.sequence import SequenceTransformer
from diffusion_jax.recipes import masked
from diffusion_jax.recipes.compose import Data

LEVELS, SHAPE = 17, (8, 8, 1)


def get_config():
    config = masked.default_config()
    config.data.threads = 1
    config.model.features = 96
    config.model.layers = 3
    config.train.batch_size = 32
    config.train.steps = 4000
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 100
    config.train.ema_decay = 0.997
    config.log.every = 50
    config.log.checkpoint_every = 1000
    config.log.sample_every = 1000
    config.log.samples = 36
    config.log.preview_steps = 64
    return config


def build(config):
    data = Data(
        source=lambda: toys.levels(sources.digits("train"), LEVELS),
        example={"tokens": jax.ShapeDtypeStruct(SHAPE, jnp.int32)},
        clean=lambda batch: batch["tokens"],
        shape=SHAPE,
        view=views.levels(LEVELS),
    )
    model = SequenceTransformer(
        LEVELS + 1, config.model.features, config.model.layers, config.model.heads, config.model.dropout
    )
    return masked.build(config, data, model, LEVELS)
