"""Our side of the samplers' benchmark: each sampler on a schedule it is used with, compiled, measured, timed."""

import functools
import itertools
import re
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax import config
from diffusion_jax.app import cpu
from diffusion_jax.diffusion import guidance, parameterizations, processes, samplers, schedules, timesteps, variances
from diffusion_jax.methods import pixels

TABLE = 1000
CORRECTIONS = 1  # of predictor_corrector, a level
LANGEVIN = 2  # steps of annealed_langevin a level


class Chain(NamedTuple):
    """A sampler with all that `samplers.make_sample_fn` wants of it, and what it costs in network evaluations."""

    parameterization: parameterizations.Parameterization
    process: processes.Process
    sampler: samplers.Sampler
    times: np.ndarray
    evaluations: int
    transforms: Sequence[Callable] = ()


def chain_of(name: str, steps: int) -> Chain:
    """The sampler `name` of `samplers.SAMPLERS`, on a grid of `steps` steps."""
    return CHAINS[name](steps)


def on_table(make: Callable, grid: Callable = timesteps.uniform, again: int = 0, transforms: Callable = lambda _: ()):
    """`steps -> Chain` on DDPM's table, the network predicting the noise.

    make: `schedule -> Sampler`. again: network evaluations that every step but the last makes beyond its first.
    """

    def build(steps):
        schedule = schedules.from_betas(schedules.linear_betas(TABLE))
        return Chain(
            parameterizations.eps(schedule, parameterizations.table_index(TABLE)),
            processes.gaussian(schedule),
            make(schedule),
            grid(steps, TABLE),
            steps + again * (steps - 1),
            transforms(schedule),
        )

    return build


def on_ve(make: Callable, evaluations: Callable):
    """`steps -> Chain` on the VE SDE, the network predicting the score. make: `(schedule, times) -> Sampler`."""

    def build(steps):
        schedule = schedules.ve()
        times = timesteps.linear(steps)
        return Chain(
            parameterizations.score(schedule, parameterizations.thousandths),
            processes.gaussian(schedule),
            make(schedule, times),
            times,
            evaluations(steps),
        )

    return build


def edm_churn(steps):
    schedule = schedules.edm(80 * 2**0.5)  # room for the noise that is added at the first level
    return Chain(
        parameterizations.edm(schedule),
        processes.gaussian(schedule),
        samplers.edm(schedule, s_churn=40.0, s_tmin=0.05, s_tmax=50.0, s_noise=1.003),
        timesteps.karras(schedule, steps),
        2 * steps - 1,
    )


def langevin(schedule, times):
    last = schedule.sigma(times[-2]) / schedule.alpha(times[-2])
    return samplers.annealed_langevin(schedule, LANGEVIN, eps=0.2 * last**2)  # a tenth of the way, however many steps


CHAINS = {
    "ancestral": on_table(
        lambda schedule: samplers.ancestral(processes.gaussian(schedule)),
        transforms=lambda schedule: (guidance.clip(), variances.fixed_large(schedule)),
    ),
    "ddim": on_table(
        lambda schedule: samplers.ancestral(processes.gaussian(schedule, processes.ddim(0.0))),
        timesteps.leading,
        transforms=lambda _: (guidance.clip(),),
    ),
    "euler": on_table(samplers.euler),
    "heun": on_table(samplers.heun, again=1),
    "edm churn": edm_churn,
    "dpmpp_2m": on_table(samplers.dpmpp_2m),
    "dpmpp_2m_sde": on_table(samplers.dpmpp_2m_sde),
    "euler_maruyama": on_ve(lambda schedule, _: samplers.euler_maruyama(schedule), lambda steps: steps),
    "predictor_corrector": on_ve(
        lambda schedule, _: samplers.predictor_corrector(
            schedule, samplers.euler_maruyama(schedule), steps=CORRECTIONS
        ),
        lambda steps: steps + CORRECTIONS * (steps - 1),
    ),
    "annealed_langevin": on_ve(langevin, lambda steps: LANGEVIN * steps),
}


def make(options, _):
    """`Ours` in a process of its own, where no program is taken from a cache of earlier runs."""
    cpu.prefer_eigen()
    jax.config.update("jax_enable_compilation_cache", False)
    return Ours(options)


class Ours:
    """What the parent may ask of this side; `options.config` is the file whose network it is."""

    def __init__(self, options):
        values = config.load(options.config).get_config()
        self._shape, self._batch = tuple(values.data.shape), options.batch
        self._steps = options.steps
        model = pixels.unet(values)
        self._apply = lambda params, x, t: model.apply({"params": params}, x, t)
        zeros = jnp.zeros((1, *self._shape))
        self._params = jax.jit(lambda key: model.init(key, zeros, jnp.zeros(1))["params"])(jax.random.key(0))
        self._key = jax.random.key(1)
        self._ready = {}
        device = jax.local_devices()[0]
        self._about = {
            "name": "diffusion_jax",
            "versions": f"jax {jax.__version__}",
            "device": device.device_kind,
            "platform": device.platform,
            "parameters": sum(x.size for x in jax.tree.leaves(self._params)),
            # What the peer has to match.
            "shape": list(self._shape),
            "model": values.model.to_dict(),
        }

    def about(self) -> dict:
        return self._about

    def program(self, name: str, steps: int, run: str = "solve") -> dict:
        """What compiling takes, and what the program takes then; `run` is solve, film (all frames) or unrolled."""
        return self._program(name, steps, run)[0]

    def prepare(self, name: str) -> dict:
        """Compile `name` for `seconds`. Its network evaluations, and whether the images are finite."""
        if name == "network":
            evaluations = self._steps
            compiled = _compiled(self._network_alone, self._params, self._key)[0]
        else:
            evaluations = chain_of(name, self._steps).evaluations
            compiled = self._program(name, self._steps, "solve")[1]
        self._ready[name] = compiled
        return {"evaluations": evaluations, "finite": bool(np.isfinite(compiled(self._params, self._key)).all())}

    def seconds(self, name: str) -> float:
        """Of one whole chain of `options.steps` steps, the images brought to the host."""
        start = time.perf_counter()
        np.asarray(self._ready[name](self._params, self._key))
        return time.perf_counter() - start

    def sample_fn(self, name: str, steps: int, run: str = "solve") -> Callable:
        """`(params, key) -> images`, as `make_sample_fn` says."""
        chain = chain_of(name, steps)
        runs = {
            "solve": samplers.solve,
            "film": functools.partial(samplers.film, frames=steps),
            "unrolled": unrolled,
        }
        return samplers.make_sample_fn(
            self._apply,
            chain.parameterization,
            chain.process,
            chain.sampler,
            chain.times,
            self._batch,
            self._shape,
            chain.transforms,
            runs[run],
        )

    def _program(self, name, steps, run):
        compiled, trace, compile_ = _compiled(self.sample_fn(name, steps, run), self._params, self._key)
        memory = compiled.memory_analysis()
        times = chain_of(name, steps).times
        plan = chain_of(name, steps).sampler.plan(times[:-1], times[1:])
        return {
            "seconds": trace + compile_,
            "tracing": trace,
            "instructions": len(INSTRUCTION.findall(compiled.as_text())),
            "memory": memory.temp_size_in_bytes + memory.output_size_in_bytes,
            "coefficients": sum(np.asarray(x).astype(np.float32).nbytes for x in jax.tree.leaves(plan)),
        }, compiled

    def _network_alone(self, params, key):
        def body(x, time):
            return self._apply(params, x, jnp.broadcast_to(time, x.shape[:1])), None

        x = jax.random.normal(key, (self._batch, *self._shape))
        return jax.lax.scan(body, x, np.arange(self._steps, dtype=np.float32))[0]


INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.-]+ = ", re.MULTILINE)  # one a line of optimised HLO


def unrolled(sampler, times, denoise, x, keys):
    """The control: the steps one after another in Python. For samplers without memory."""
    for interval in itertools.pairwise(times):
        x = samplers.solve(sampler, interval, denoise, x, keys)
    return x


def _compiled(function, *args):
    """(the program, seconds of tracing and lowering, seconds of compiling)."""
    start = time.perf_counter()
    lowered = jax.jit(function).lower(*args)
    middle = time.perf_counter()
    compiled = lowered.compile()
    return compiled, middle - start, time.perf_counter() - middle
