"""How a method's parts become an `Experiment`, whatever the data."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax import samplers
from diffusion_jax.errors import InputError
from diffusion_jax.experiment import Experiment, SampleRequest
from diffusion_jax.parameterizations import Parameterization
from diffusion_jax.processes import Process
from diffusion_jax.training_times import Times
from diffusion_jax.views import View


class Walk(NamedTuple):
    """One way down: a sampler, its grid, and what is done to the denoiser first."""

    sampler: samplers.Sampler
    times: np.ndarray
    transforms: Sequence[Callable] = ()


class Data(NamedTuple):
    """What is learned.

    Attributes:
      source: `() -> source` of training examples (`data.sources`).
      example: name -> shape and dtype, of what is used of an example.
      clean: `batch -> x0 [B, ...]`, the data as the process takes it.
      shape: of one x0, as `process.prior` takes it.
      view: how samples are kept and shown.
      transforms: per-example transforms (`data.pipeline`).
    """

    source: Callable
    example: Mapping[str, jax.ShapeDtypeStruct]
    clean: Callable
    shape: object
    view: View
    transforms: tuple[Callable, ...] = ()


def base_config() -> ConfigDict:
    """The values that every experiment has."""
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "dir": "",  # where the data is, if not where the config looks by itself
                "threads": 8,
            },
            "train": {
                "batch_size": 128,
                "steps": 800_000,
                "learning_rate": 2e-4,
                "warmup_steps": 5000,
                "clip_norm": 1.0,
                "ema_decay": 0.9999,
            },
            "log": {
                "every": 100,  # steps between lines of metrics
                "checkpoint_every": 5000,
                "keep": 3,  # checkpoints
                "sample_every": 10_000,  # steps between previews; 0 for none
                "samples": 64,  # examples in a preview
                "preview_steps": 50,
            },
        }
    )


def compose(
    config: ConfigDict,
    data: Data,
    *,
    model: nn.Module,
    process: Process,
    parameterization: Parameterization,
    loss: Callable,
    times: Times,
    walks: Mapping[str, Callable],
    preview: str,
) -> Experiment:
    """A method as an experiment.

    Args:
      config: values, with the sections of `base_config`.
      data: what is learned.
      model: a module, called with (input, time [B], dropout keys [B] or None).
      process: destroys the data, and gives the prior.
      parameterization: what the network is shown and asked for.
      loss: `(apply, parameterization, process) -> loss` (`losses`).
      times: at which it is trained.
      walks: name -> (`SampleRequest -> Walk`); the first is the default sampler.
      preview: the one of them that draws during training, in `config.log.preview_steps` steps.
    """

    def apply(params, x, time, dropout_keys=None):
        return model.apply({"params": params}, x, time, dropout_keys)

    def network_input(key):
        x = jax.vmap(lambda key: process.prior(key, data.shape))(key[None])
        return parameterization.scale(x, jnp.ones(1))

    criterion = loss(apply, parameterization, process)
    # Only the shapes: nothing is drawn.
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(network_input, jax.random.key(0)))

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
                request.batch,
                data.shape,
                way.transforms,
                request.run or samplers.solve,
            )

        return make

    made = {name: sampler(walk) for name, walk in walks.items()}
    return Experiment(
        example=data.example,
        init=lambda key: model.init(key, *zeros)["params"],
        loss=lambda keys, params, batch, t: criterion(keys, params, data.clean(batch), t),
        times=times,
        optimizer=optimizer(config.train),
        ema_decay=config.train.ema_decay,
        source=data.source,
        transforms=data.transforms,
        samplers=made,
        preview=lambda batch: made[preview](SampleRequest(batch, steps=config.log.preview_steps)),
        view=data.view,
    )


def without_eta(walk: Callable) -> Callable:
    """A walk that has no eta, and says so when it is given one."""

    def refusing(request: SampleRequest) -> Walk:
        if request.eta is not None:
            raise InputError(f"eta = {request.eta}: only the sampler ddim has it; add --sampler ddim")
        return walk(request)

    return refusing


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """Adam with a linear warm-up and gradients clipped by their global norm (DDPM's appendix B and its code)."""
    learning_rate = optax.linear_schedule(0.0, config.learning_rate, config.warmup_steps)
    return optax.chain(optax.clip_by_global_norm(config.clip_norm), optax.adam(learning_rate, eps=1e-8))
