"""Our noise as diffusers' pipelines draw it, and their tables in double precision."""

import jax
import numpy as np
import torch

from diffusion_jax.core import rng
from diffusion_jax.diffusion import stages
from diffusion_jax.pretrained.schedulers import scheduler as ours_of

PROMPTS = ["a photo of the cat", "the dog, WOW!"]
KEYS = jax.random.split(jax.random.key(0), 2)


def noise(*chains):
    """Our noise as theirs draw it, of (stage, shape, steps of its chain); None for what no chain draws."""

    def drawn():
        for name, shape, steps in chains:
            keys = stages.keys_of(name, KEYS)
            for each in [keys] if steps is None else [rng.each(keys, step) for step in steps]:
                x = jax.vmap(lambda key, shape=shape: rng.flat(jax.random.normal, key, shape))(each)
                yield torch.from_numpy(np.moveaxis(np.asarray(x), -1, 1).copy())

    queue = drawn()
    return lambda *shape, **how: next(queue)


def in_double(scheduler):
    """Diffusers' own tables in float32 alone move such pictures by 3e-2, where nothing is left of them."""
    table = ours_of.betas(scheduler.config | {"_class_name": type(scheduler).__name__})
    scheduler.betas, scheduler.alphas = torch.from_numpy(table), torch.from_numpy(1 - table)
    scheduler.alphas_cumprod = torch.cumprod(scheduler.alphas, 0)
    return scheduler
