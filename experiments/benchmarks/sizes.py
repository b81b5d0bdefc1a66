"""What `ddpm` measures of ours, by size: an experiment that trains and draws, and what a peer has to match."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict

from configs import cifar, digits, imagenet256_dit, lsun_church
from diffusion_jax.diffusion import (
    guidance,
    losses,
    parameterizations,
    processes,
    samplers,
    schedules,
    time_sampling,
    timesteps,
    variances,
)
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import Chain, Method, compose
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.models.transformers import dit
from diffusion_jax.training.experiment import Experiment

TABLE = 1000
WITHHELD = 0.1  # share of examples that DiT is not told the class of, in training


class Size(NamedTuple):
    """One size. `match` is what the peer needs beside the experiment's shapes and `config.train`, plain values."""

    config: ConfigDict
    experiment: Experiment
    match: dict


class Table(NamedTuple):
    """DDPM's linear table of betas, and what is made of it."""

    schedule: schedules.Schedule
    process: processes.Process
    parameterization: parameterizations.Parameterization


def table() -> Table:
    schedule = schedules.from_betas(schedules.linear_betas(TABLE))
    said = parameterizations.eps(schedule, parameterizations.table_index(TABLE))
    return Table(schedule, processes.gaussian(schedule), said)


def heun(steps: int = 50) -> Chain:
    """Two evaluations a step and one in the last; nothing is clipped."""
    return Chain(samplers.heun(table().schedule), timesteps.uniform(steps, TABLE))


def unet(module, variance: str) -> Callable[[bool], Size]:
    """`bfloat16 -> Size` of a module of configs/, DDPM on images, as it stands there; and Heun's method.

    `variance` is what diffusers calls that of its ancestral sampler.
    """

    def make(bfloat16):
        config = module.get_config()
        config.model.bfloat16 = bfloat16
        method = module.build(config).method
        match = {"model": config.model.to_dict(), "variance": variance, "clip": True}
        return Size(config, compose(config, method._replace(chains={**method.chains, "heun": heun})), match)

    return make


LATENT = (32, 32, 4)  # of configs/imagenet256_dit.py


def dit_b2(bfloat16: bool) -> Size:
    """DiT-B/2 on the latents of configs/imagenet256_dit.py, which says the noise and no variance.

    The usual PyTorch loop learns no variance, and recomputes no block in the backward pass; so nor does this.
    """
    config = imagenet256_dit.get_config()
    config.model.update({"features": 768, "layers": 12, "heads": 12, "bfloat16": bfloat16})
    schedule, process, said = table()
    null = guidance.replacing(label=imagenet256_dit.CLASSES)

    def chain(process, grid, variance):
        return lambda steps: Chain(samplers.ancestral(process), grid(steps, TABLE), (variance(schedule),))

    method = Method(
        pixels.with_labels(pixels.latents(pixels.data(config, None), LATENT, None, False), imagenet256_dit.CLASSES),
        model=dit.B(
            patch=config.model.patch,
            out_channels=LATENT[-1],
            embed={"label": LabelEmbedding(imagenet256_dit.CLASSES + 1, nn.initializers.normal(0.02))},
            dtype=jnp.bfloat16 if bfloat16 else jnp.float32,
        ),
        process=process,
        parameterization=said,
        loss=lambda *parts: losses.withholding(losses.simple(*parts), null, WITHHELD),
        times=time_sampling.independent(time_sampling.table(TABLE)),
        chains={
            "ancestral": chain(process, timesteps.uniform, variances.fixed_large),
            "ddim": chain(processes.gaussian(schedule, processes.ddim(0.0)), timesteps.leading, variances.posterior),
            "heun": heun,
        },
        preview="ddim",
    )
    model = config.model.to_dict() | {"classes": imagenet256_dit.CLASSES, "withheld": WITHHELD}
    return Size(config, compose(config, method), {"model": model, "variance": "fixed_large", "clip": False})


SIZES = {
    "cifar": unet(cifar, "fixed_large"),
    "church": unet(lsun_church, "fixed_small"),
    "digits": unet(digits, "fixed_large"),
    "dit": dit_b2,
}
