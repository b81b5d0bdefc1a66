"""What `flat` measures: input beside training, and what a step costs the host however many devices there are."""

import itertools
import math
import os
import time
from collections.abc import Iterable

import jax

from configs import digits
from diffusion_jax.app import cpu
from diffusion_jax.data import pipeline
from diffusion_jax.data.device import prefetch
from diffusion_jax.parallel import calls
from diffusion_jax.parallel.replicated import DataParallel
from diffusion_jax.parallel.sharded import parallel_for
from diffusion_jax.training.metrics import Log
from diffusion_jax.training.state import init_state
from experiments.benchmarks.ours import begin, drawn
from experiments.benchmarks.sizes import SIZES

IN_MEMORY = 512  # different examples of a source, however long it is


def make(options, _):
    """What `options.part` names, in a process of its own."""
    cpu.prefer_eigen()
    jax.config.update("jax_enable_compilation_cache", False)
    return {"input": Input, "dispatch": Dispatch}[options.part](options)


class Repeated:
    """A source of `count` examples, of which few are different: reading one costs the same however many there are."""

    def __init__(self, example: dict, count: int):
        self._rows = {name: drawn(min(IN_MEMORY, count), like) for name, like in example.items()}
        self._count = count

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        return {name: rows[index % len(rows)] for name, rows in self._rows.items()}


class Input:
    """The loader and the training step of `options.size`, alone and together; speeds in examples a second."""

    def __init__(self, options):
        self._config, self._experiment, _ = SIZES[options.size](False)
        self._batch, self._steps = options.batch, options.steps
        self._parallel = DataParallel(jax.local_devices()[:1])
        self._state, step = begin(self._parallel, self._experiment, self._config.seed)
        self._most = self._config.train.steps_per_call
        self._train_steps = self._parallel.train_steps(step, self._most)
        self._same = {name: drawn(options.batch, like) for name, like in self._experiment.example.items()}
        self.alone()  # compiles

    def loader(self, examples: int) -> float:
        """The pipeline of `fit` and nothing else, after what it has read ahead."""
        stream = self._stream(examples)
        for _ in range(2 * max(self._config.data.threads, self._most) + 2):
            next(stream)
        start = time.perf_counter()
        for _ in range(self._steps):
            next(stream)
        return self._steps * self._batch / (time.perf_counter() - start)

    def alone(self) -> float:
        """Steps on one and the same batch."""
        return self._train(self._parallel.shard(self._same) for _ in range(self._steps))[0]

    def fed(self, examples: int) -> tuple[float, float]:
        """Steps as `fit` makes them; and the share of the time in which the host waited for the next batch."""

        def put(batch):
            return self._parallel.shard({name: batch[name] for name in self._same})

        batches = prefetch(self._stream(examples), put)
        next(batches)  # the threads start here
        return self._train(batch for batch, _ in batches)

    def _stream(self, examples):
        threads = self._config.data.threads
        return pipeline.batches(
            Repeated(self._experiment.example, examples),
            batch_size=self._batch,
            seed=0,
            transforms=self._experiment.transforms,
            threads=threads,
            prefetch=max(2, threads, self._most),
        )

    def _train(self, batches: Iterable) -> tuple[float, float]:
        waited, batches = 0.0, iter(batches)
        start = time.perf_counter()
        # Never more than two calls ahead, as in `fit`.
        with Log((), 0, self._steps, self._steps, self._batch, shown=False) as log:
            for steps in calls.plan(0, self._steps, self._most, ()):
                asked = time.perf_counter()
                taken = list(itertools.islice(batches, len(steps)))
                waited += time.perf_counter() - asked
                self._state, metrics = self._train_steps(self._state, taken)
                log.push(steps, metrics)
            log.drain()
        seconds = time.perf_counter() - start
        return self._steps * self._batch / seconds, waited / seconds


class Dispatch:
    """How long a step keeps the host, on `options.devices` simulated devices."""

    def __init__(self, options):
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} --xla_force_host_platform_device_count={options.devices}".strip()
        jax.config.update("jax_platforms", "cpu")
        self._repeats, self._devices = options.repeats, jax.local_devices()
        config = digits.get_config()
        config.model.channels = config.model.groups = 8
        self._config, self._experiment = config, digits.build(config)

    def step(self, fsdp: bool, most: int) -> dict[str, list[float]]:
        """`_seconds` of a training step, `most` of them in one call."""
        parallel = parallel_for(fsdp, self._devices)
        state, step = begin(parallel, self._experiment, self._config.seed)
        return self._seconds(parallel, state, parallel.train_steps(step, most), most)

    def least(self) -> dict[str, list[float]]:
        """`_seconds` of what adds 1 to every array of the state, under `pmap`: JAX's own work for so many."""
        parallel = DataParallel(self._devices)
        state, _ = begin(parallel, self._experiment, self._config.seed)
        added = parallel.train_step(lambda state, batch: (jax.tree.map(lambda x: x + 1, state), {}))
        return self._seconds(parallel, state, lambda state, batches: added(state, *batches), 1)

    def _seconds(self, parallel, state, steps, most: int) -> dict[str, list[float]]:
        """Of one step: of `steps` until the call returns, of that its thread's own work, and until all is done."""
        batch = {name: drawn(len(self._devices), like) for name, like in self._experiment.example.items()}
        found = {"return": [], "thread": [], "done": []}
        for repeat in range(-3, math.ceil(self._repeats / most)):  # the first compile
            rows = jax.block_until_ready([parallel.shard(batch) for _ in range(most)])
            start, worked = time.perf_counter(), time.thread_time()
            state, metrics = steps(state, rows)
            returned, thread = time.perf_counter() - start, time.thread_time() - worked
            jax.block_until_ready((state, metrics))
            done = time.perf_counter() - start
            if repeat >= 0:
                for name, seconds in zip(found, (returned, thread, done), strict=True):
                    found[name].append(seconds / most)
        return found

    def arrays(self) -> int:
        """Of the state: what a call has to look after, on every device."""
        experiment = self._experiment
        parts = experiment.task.init, experiment.optimization.optimizer.transformation, experiment.task.times
        return len(jax.tree.leaves(jax.eval_shape(lambda key: init_state(*parts, key), jax.random.key(0))))
