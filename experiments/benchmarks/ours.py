"""Our side of the benchmark: what the command lines compile, timed from outside."""

import math
import time

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion_jax.app import cpu, sampling
from diffusion_jax.core import rng
from diffusion_jax.diffusion import samplers
from diffusion_jax.parallel import calls
from diffusion_jax.parallel.replicated import AXIS, DataParallel
from diffusion_jax.training.experiment import SampleRequest
from diffusion_jax.training.state import init_state
from diffusion_jax.training.step import make_train_step
from experiments.benchmarks.ddpm import CHAINS
from experiments.benchmarks.flops import best_rate, flops
from experiments.benchmarks.shared import host_memory
from experiments.benchmarks.sizes import SIZES, Size

COMPILER = "/jax/core/compile/backend_compile_duration"  # what JAX calls the time that XLA takes


def make(options, _):
    """`Ours` in a process of its own, where no program is taken from a cache of earlier runs.

    Set as `train` does where training is among the tasks, else as `sample` does, with a device for each core.
    """
    if "training" in options.tasks:
        cpu.prefer_eigen()
        cpu.keep_memory()
    else:
        cpu.one_device_a_core()
    jax.config.update("jax_enable_compilation_cache", False)
    return Ours(options, SIZES[options.size](options.dtype == "bfloat16"))


class Ours:
    """What the parent may ask of this side (`ddpm.measure`)."""

    def __init__(self, options, size: Size):
        self._options, experiment = options, size.experiment
        self._device = jax.local_devices()[0]
        parallel = DataParallel([self._device])
        self._state, self._plain_step = begin(parallel, experiment, size.config.seed)
        self._most = size.config.train.steps_per_call
        self._train_steps, self._shard = parallel.train_steps(self._plain_step, self._most), parallel.shard
        self._batch = {name: drawn(options.batch, x) for name, x in experiment.data.example.items()}
        keys = rng.per_example(jax.random.key(0), jnp.arange(options.batch))
        self._given = keys, *experiment.data.sample_condition(options.batch, {})

        def last_step(sampler, times, denoise, x, keys):
            return samplers.solve(sampler, times[-2:], denoise, x, keys)

        self._one_step = experiment.sampling.samplers["ddim"](SampleRequest(options.batch, run=last_step))

        # As `sample` draws, but on one GPU at most, as the peer does; and in equal parts.
        cores = jax.local_devices() if self._device.platform == "cpu" else [self._device]
        devices = cores[: math.gcd(len(cores), options.batch)]
        split = sampling.spread(self._state.ema, options.batch, devices=devices)
        self._params = split.hold(self._state.ema)

        def sampler(task):
            def beginning(sampler, times, denoise, x, keys):
                return samplers.solve(sampler, times[: options.sampling_steps + 1], denoise, x, keys)

            request = SampleRequest(options.batch // split.programs, steps=CHAINS[task].steps, run=beginning)
            return split.sample(experiment.sampling.samplers[task](request))

        self._samplers = {task: sampler(task) for task in CHAINS}
        tf32 = f"TF32 (jax_default_matmul_precision {jax.config.jax_default_matmul_precision or 'default'})"
        float32 = tf32 if self._device.platform == "gpu" else "float32"
        products = {"float32": float32, "bfloat16": "bfloat16"}
        self._about = {
            "name": "diffusion_jax",
            "versions": f"jax {jax.__version__}, flax {flax.__version__}, optax {optax.__version__}",
            "device": self._device.device_kind,
            "platform": self._device.platform,
            "parameters": sum(x.size for x in jax.tree.leaves(self._state.params)),
            "precision": f"products and convolutions {products[options.dtype]}, parameters float32, arrays NHWC",
            # What the peer has to match.
            "shape": list(next(iter(experiment.data.example.values())).shape),
            "train": size.config.train.to_dict(),
            **size.match,
        }

    def about(self) -> dict:
        return self._about

    def first(self, task: str) -> dict:
        """Seconds of the first call, and what of it is XLA's compiler."""
        compiling = []

        def listen(event, seconds, **_):
            if event == COMPILER:
                compiling.append(seconds)

        jax.monitoring.register_event_duration_secs_listener(listen)
        seconds = self.seconds(task)
        jax.monitoring.unregister_event_duration_listener(listen)
        return {"first": seconds, "compiling": sum(compiling)}

    def seconds(self, task: str) -> float:
        """Of `train_steps` steps of training, or of the beginning of a chain, waited for."""
        start = time.perf_counter()
        if task == "training":
            for steps in calls.plan(0, self._options.train_steps, self._most, ()):
                self._state, metrics = self._train_steps(self._state, [self._shard(self._batch) for _ in steps])
            jax.block_until_ready((self._state, metrics))
        else:
            self._samplers[task](self._params, *self._given)  # returns NumPy arrays: it has waited
        return time.perf_counter() - start

    def memory(self) -> dict:
        """Peak MiB of the process, and on the accelerator if there is one."""
        stats = self._device.memory_stats()
        return {"host": host_memory()} | ({"device": stats["peak_bytes_in_use"] / 2**20} if stats else {})

    def flops(self) -> dict:
        """Operations of one training step, and of one evaluation of the network, on the whole batch."""
        step = jax.make_jaxpr(self._plain_step, axis_env=[(AXIS, 1)])(self._state, self._batch)
        evaluation = jax.make_jaxpr(self._one_step)(self._state.ema, *self._given)
        return {"training": flops(step), "evaluation": flops(evaluation)}

    def rate(self) -> float:
        """`best_rate` of a product of matrices, in the type that is measured."""
        product = jax.jit(jnp.matmul)

        def multiply(n):
            pair = np.random.default_rng(0).standard_normal((2, n, n), np.float32)
            left, right = jax.device_put(jnp.asarray(pair, self._options.dtype), self._device)
            return lambda: product(left, right).block_until_ready()

        return best_rate(multiply, self._device.platform)


def begin(parallel, experiment, seed: int) -> tuple:
    """(the first state, on the devices; the step that `parallel.train_steps` compiles)."""
    task, optimization = experiment.task, experiment.optimization
    optimizer = optimization.optimizer.transformation
    state = init_state(task.init, optimizer, task.times, jax.random.key(0))
    step = make_train_step(task.loss, task.times, optimizer, optimization.ema_decay, seed, shares=parallel.shares)
    return parallel.hold(state), step


def drawn(batch: int, like: jax.ShapeDtypeStruct) -> np.ndarray:
    """Anything of the type of an example's array, [batch, ...]: images, latents, labels."""
    noise, shape = np.random.default_rng(0), (batch, *like.shape)
    if jnp.issubdtype(like.dtype, jnp.integer):
        return noise.integers(0, 256, shape).astype(like.dtype)
    return noise.standard_normal(shape).astype(like.dtype)
