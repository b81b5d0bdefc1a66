"""Our side of the benchmark: what the command lines compile, timed from outside."""

import importlib

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion_jax import rng, samplers
from diffusion_jax.experiment import SampleRequest
from diffusion_jax.training.parallel import DataParallel
from diffusion_jax.training.state import init_state
from diffusion_jax.training.step import make_train_step


def make(options, _):
    """(about, training, sampling, memory); see `ddpm.Side`."""
    module = importlib.import_module(f"configs.{options.size}")
    config = module.get_config()
    config.model.bfloat16 = options.dtype == "bfloat16"
    experiment = module.build(config)
    device = jax.local_devices()[0]
    parallel = DataParallel([device])
    root = jax.random.key(0)
    state = parallel.replicate(init_state(experiment.init, experiment.optimizer, experiment.times, root))
    step = parallel.train_step(
        make_train_step(experiment.loss, experiment.times, experiment.optimizer, experiment.ema_decay, config.seed)
    )
    shape = experiment.example["image"].shape
    images = np.random.default_rng(0).integers(0, 256, (options.batch, *shape), np.uint8)

    def beginning(sampler, times, denoise, x, keys):
        return samplers.solve(sampler, times[: options.sampling_steps + 1], denoise, x, keys)

    sample = parallel.sample(experiment.samplers["ancestral"](SampleRequest(options.batch, run=beginning)))
    keys = rng.per_example(root, jnp.arange(options.batch))

    def training():
        nonlocal state
        for _ in range(options.train_steps):
            state, metrics = step(state, parallel.shard({"image": images}))
        jax.block_until_ready((state, metrics))

    def sampling():
        sample(state.ema, keys)  # returns NumPy arrays: it has waited

    def memory():
        stats = device.memory_stats()
        return stats["peak_bytes_in_use"] / 2**20 if stats else None

    about = {
        "name": "diffusion_jax",
        "versions": f"jax {jax.__version__}, flax {flax.__version__}, optax {optax.__version__}",
        "device": device.device_kind,
        "platform": device.platform,
        "parameters": sum(x.size for x in jax.tree.leaves(state.params)),
        # What the peer has to match.
        "shape": list(shape),
        "model": config.model.to_dict(),
        "train": config.train.to_dict(),
    }
    return about, training, sampling, memory
