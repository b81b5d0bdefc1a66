"""A classifier of noisy images, to guide a model that was never told a label (Dhariwal & Nichol 2021, section 4)."""

import jax.numpy as jnp
from flax import linen as nn
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from diffusion_jax.core.distributions import Categorical
from diffusion_jax.diffusion import losses, parameterizations, processes, time_sampling
from diffusion_jax.methods.compose import of_batch
from diffusion_jax.methods.ddpm import table
from diffusion_jax.training import averages
from diffusion_jax.training.experiment import Data, Experiment, Measures, Optimization, Task
from diffusion_jax.training.optimizers import adam


def build(config: ConfigDict, data: Data, model: nn.Module, betas: ArrayLike | None = None) -> Experiment:
    """A classifier as an experiment: it is trained like the others, and draws nothing.

    Args:
      config: values, as `ddpm.default_config` names them.
      data: with labels (`pixels.with_labels`).
      model: from noisy images and the time to logits (`models.Classifier`).
      betas: the table of the model that it is to guide, [config.diffusion.timesteps]; by default DDPM's linear one.
    """
    num = config.diffusion.timesteps
    schedule = table(num, betas)
    time = parameterizations.table_index(num)

    def apply(params, x, t, **dropout_keys):
        return model.apply({"params": params}, x, jnp.broadcast_to(time(t), x.shape[:1]), **dropout_keys)

    def log_prob(params, x_t, t, label):
        return Categorical(apply(params, x_t, t)).log_prob(label)

    loss = losses.classifying(apply, processes.gaussian(schedule))
    return Experiment(
        data,
        Task(
            init=lambda key: model.init(key, jnp.zeros((1, *data.shape)), jnp.zeros(1))["params"],
            loss=of_batch(loss, data),
            times=time_sampling.independent(time_sampling.table(num)),
        ),
        Optimization(
            adam(config.train),
            config.train.ema_decay,
            averages.named(config.train.ema_decays, config.train.ema_profiles),
        ),
        measures=Measures(log_prob=log_prob),
    )
