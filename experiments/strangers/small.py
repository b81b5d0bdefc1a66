"""An experiment of 40 parameters that is a closure: it compiles in a second, and has all that a run keeps.

Points in the plane, a denoiser that is one hidden layer, a memory of losses, two further averages, of which one
leaves snapshots, and a preview.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from diffusion_jax.core import rng
from diffusion_jax.data import views
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.training import averages
from diffusion_jax.training.experiment import Data, Experiment, Optimization, Sampling, Task
from diffusion_jax.training.optimizers import Optimizer

WIDTH = 8


def get_config():
    """A run of 40 steps with a checkpoint every ten."""
    return ConfigDict(
        {
            "seed": 0,
            "data": {"threads": 1},
            "train": {
                **{"batch_size": 8, "steps": 40, "learning_rate": 1e-2},
                **{"accumulate": 1, "fsdp": False, "steps_per_call": 1},
            },
            "log": {
                **{"every": 1, "checkpoint_every": 10, "keep": 10, "snapshot_every": 10},
                **{"sample_every": 0, "samples": 8, "preview_steps": 1, "evaluate_every": 0, "evaluate_num": 0},
            },
        }
    )


class _Points:
    def __len__(self):
        return 64

    def __getitem__(self, index):
        return {"points": np.random.default_rng(index).normal(size=2).astype(np.float32)}


def _init(key):
    one, two = jax.random.split(key)
    return {"in": jax.random.normal(one, (3, WIDTH)), "out": 0.1 * jax.random.normal(two, (WIDTH, 2))}


def _apply(params, x, t):
    return jnp.tanh(jnp.concatenate([x, t[:, None]], -1) @ params["in"]) @ params["out"]


def _loss(keys, params, batch, context):
    x0 = batch["points"]
    noise = rng.normal_like(rng.each(keys, 0), x0)
    a = context.t[:, None]
    return ((_apply(params, jnp.sqrt(1 - a * a) * x0 + a * noise, context.t) - noise) ** 2).mean(-1), {}


def _preview(batch):
    """One estimate of x0 from noise: enough to see which parameters and which noise."""

    def sample(params, keys):
        noise = rng.normal_like(rng.each(keys, 0), jnp.zeros((len(keys), 2)))
        return noise - _apply(params, noise, jnp.ones(len(keys)))

    return sample


def build(config) -> Experiment:
    """The experiment of `config`."""
    return Experiment(
        Data(
            source=lambda split: _Points(),
            example={"points": jax.ShapeDtypeStruct((2,), np.float32)},
            clean=lambda batch: batch["points"],
            shape=(2,),
            view=views.points(3.0),
        ),
        Task(_init, _loss, time_sampling.loss_aware(num=4, kept=2)),
        Optimization(Optimizer(optax.adam(config.train.learning_rate)), 0.9, averages.named([0.5], [0.1])),
        Sampling({"preview": lambda request: _preview(request.batch)}, _preview),
    )
