"""What recipes on images share: the U-Net, the optimiser, and how a method's parts become an `Experiment`."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from diffusion_jax import images, losses, samplers
from diffusion_jax.data.pipeline import random_flip
from diffusion_jax.errors import InputError
from diffusion_jax.experiment import Experiment, SampleRequest
from diffusion_jax.models.unet import UNet
from diffusion_jax.parameterizations import Parameterization
from diffusion_jax.processes import Process


class Walk(NamedTuple):
    """One way down: a sampler, its grid, and what is done to the denoiser first."""

    sampler: samplers.Sampler
    times: np.ndarray
    transforms: Sequence[Callable] = ()


def compose(
    config: ConfigDict,
    source: Callable,
    *,
    process: Process,
    parameterization: Parameterization,
    sample_time: Callable,
    walks: Mapping[str, Callable],
    preview: str,
    reweight: Callable = lambda loss: loss,
) -> Experiment:
    """A method on images as an experiment.

    Args:
      config: values, with the sections of `ddpm.default_config`.
      source: `() -> source` of the training images.
      process: destroys them, and gives the prior.
      parameterization: what the network is shown and asked for.
      sample_time: `key -> t`, at which it is trained.
      walks: name -> (`SampleRequest -> Walk`); the first is the default sampler.
      preview: the one of them that draws during training, in `config.log.preview_steps` steps.
      reweight: loss -> loss, see `losses.weighted`.
    """
    shape = tuple(config.data.shape)
    model = unet(config)

    def apply(params, x, time, dropout_keys=None):
        return model.apply({"params": params}, x, time, dropout_keys)

    loss = reweight(losses.simple(apply, parameterization, process, sample_time))

    def sampler(walk: Callable) -> Callable:
        def make(request: SampleRequest) -> Callable:
            way = walk(request)
            stepper = way.sampler
            if request.report is not None:
                stepper = samplers.reporting(stepper, request.report)
            return samplers.make_sample_fn(
                apply,
                parameterization,
                process,
                stepper,
                way.times,
                (request.batch, *shape),
                way.transforms,
                request.run or samplers.solve,
            )

        return make

    made = {name: sampler(walk) for name, walk in walks.items()}
    return Experiment(
        shape=shape,
        init=lambda key: model.init(key, jnp.zeros((1, *shape)), jnp.zeros((1,)))["params"],
        loss=lambda keys, params, batch: loss(keys, params, images.to_float(batch["image"])),
        optimizer=optimizer(config.train),
        ema_decay=config.train.ema_decay,
        source=source,
        transforms=(random_flip,) if config.data.flip else (),
        samplers=made,
        preview=lambda batch: made[preview](SampleRequest(batch, steps=config.log.preview_steps)),
    )


def without_eta(walk: Callable) -> Callable:
    """A walk that has no eta, and says so when it is given one."""

    def refusing(request: SampleRequest) -> Walk:
        if request.eta is not None:
            raise InputError(f"eta = {request.eta}: only the sampler ddim has it; add --sampler ddim")
        return walk(request)

    return refusing


def unet(config: ConfigDict) -> UNet:
    """DDPM's U-Net with the values of `config.model`, for images of `config.data.shape`."""
    return UNet(
        channels=config.model.channels,
        multipliers=tuple(config.model.multipliers),
        blocks=config.model.blocks,
        attention_levels=tuple(config.model.attention_levels),
        out_channels=config.data.shape[-1],
        dropout=config.model.dropout,
        groups=config.model.groups,
        dtype=jnp.bfloat16 if config.model.bfloat16 else jnp.float32,
    )


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Adam with a linear warm-up and gradients clipped by their global norm (DDPM's appendix B and its code)."""
    learning_rate = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(learning_rate, eps=1e-8))
