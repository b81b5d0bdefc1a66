"""Trained runs as teachers: their parameters, for a student with the same network on the same noise."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Apply, Hold, Network, TargetParams
from diffusion_jax.diffusion.few_step import consistency
from diffusion_jax.diffusion.gaussian import q_sample
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.methods import runs
from diffusion_jax.methods.compose import Method
from diffusion_jax.training.averages import Average
from diffusion_jax.training.experiment import Data

NAME = "teacher"  # of its parameters among those that are held
COMPUTING = ("dropout", "wrap", "dtype", "attend")  # fields of networks
TIMES = np.linspace(0.05, 0.95, 7)  # at which two parameterisations are compared


def with_teacher(config: Config) -> Config:
    """`config` with the run that is learned from. It is read when a run begins, and never after."""
    config.distill = Config(teacher=values.text("", "work directory of the teacher's run"))
    return config


def with_target(config: Config) -> Config:
    """`config`, of a teacher's students, with how slowly the network follows that says what they should say."""
    config.distill.target_decay = values.number(
        0.95, "decay of the target's average", 0.0, 0.999999, zero="the student itself is the target"
    )
    return config


def target(config: ConfigDict) -> tuple[TargetParams, dict[str, Average]]:
    """The target of a consistency loss, and the averages of the student that it takes (`Method.averages`)."""
    decay = config.distill.target_decay
    if not decay:
        return consistency.itself, {}
    return consistency.averaged(), {"target": Average(lambda step: 1 - decay)}


def apply_of(model: Network) -> Apply:
    """`(params, input, time, *cond) -> output` of a network without dropout."""
    return lambda params, *inputs: model.apply({"params": params}, *inputs)


def reader(folder: str, data: Data, model: Network, schedule: Schedule, parameterization: Parameterization) -> Hold:
    """`() -> params`, the averaged parameters of the newest checkpoint of the run in `folder`.

    Args:
      folder: a work directory. Its config file is executed, as by `sample`.
      data: the student's.
      model: the network that the run must have.
      schedule: the noise that it must be trained on.
      parameterization: what it must be shown and say, on that schedule.

    The function raises `InputError` where there is no such run, or where one of them differs.
    """

    @functools.cache  # a run holds it and may start as it: one reading
    def read():
        run = runs.opened(folder, "--config.distill.teacher", "teacher")
        method = run.experiment.method
        if method is None:
            raise InputError(f"the config of the teacher in {folder} composes no method; distil one that does")
        _check(folder, method, data, model, schedule, parameterization)
        return run.read()

    return read


def of_run(folder: str, teacher: Method) -> Hold:
    """`reader` of a run with the data, the network, the noise and the words of `teacher`."""
    assert teacher.schedule is not None
    return reader(folder, teacher.data, teacher.model, teacher.schedule, teacher.parameterization)


def _check(folder: str, teacher: Method, data: Data, model, schedule: Schedule, parameterization: Parameterization):
    if teacher.data.shape != data.shape or teacher.data.example != data.example:
        raise InputError(
            f"the teacher in {folder} learned {_described(teacher.data)}, the student learns {_described(data)}; "
            "give both the same data"
        )
    network = _computed_alike(teacher.model, model)
    if network != model:
        raise InputError(
            f"the network of the teacher in {folder} is another ({_difference(network, model)}); "
            "give the student the values of --config.model that the teacher has"
        )
    if teacher.schedule is None or not _same_noise(teacher.schedule, schedule):
        raise InputError(f"the teacher in {folder} was trained on another schedule of noise; see this config's page")
    if not _same_words(teacher.parameterization, parameterization, model, data, schedule):
        raise InputError(
            f"the output of the teacher in {folder} means something else: its parameterisation is not the one that "
            "this method distils; see this config's page for how to train a teacher"
        )


def _described(data: Data) -> str:
    entries = [f"{name} {x.dtype}[{','.join(map(str, x.shape))}]" for name, x in data.example.items()]
    return " and ".join(entries)


def _computed_alike(one, other):
    """`one` with those fields of `other` that its parameters do not depend on: a teacher is held without dropout."""
    if type(one) is not type(other) or not isinstance(one, nn.Module):
        return one
    return one.clone(**{name: getattr(other, name) for name in COMPUTING if hasattr(other, name)})


def _difference(one, other) -> str:
    if type(one) is not type(other):
        return f"{type(one).__name__}, not {type(other).__name__}"
    for field in dataclasses.fields(one):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name not in ("parent", "name") and a != b:
            return f"{field.name} = {a} there, {b} here"[:200]
    return "of other fields"


def _same_noise(one: Schedule, other: Schedule) -> bool:
    pairs = [(np.asarray(f(TIMES)), np.asarray(g(TIMES))) for f, g in zip(one[:2], other[:2], strict=True)]
    return all(np.allclose(a, b, rtol=1e-3, atol=1e-6) for a, b in pairs)


def _same_words(one: Parameterization, other: Parameterization, model, data: Data, schedule: Schedule) -> bool:
    """Whether two parameterisations give the same input, time and estimate, for random numbers at some times."""
    rng = np.random.default_rng(0)
    t = jnp.asarray(TIMES, jnp.float32)
    x0, noise = (jnp.asarray(rng.standard_normal((len(TIMES), *data.shape), np.float32)) for _ in range(2))
    x = q_sample(schedule, x0, t, noise)
    channels = getattr(model, "out_channels", data.shape[-1])
    output = jnp.asarray(rng.standard_normal((*x.shape[:-1], channels), np.float32))
    try:
        a, b = ((p.scale(x, t), p.read(output, x, t).mean) for p in (one, other))
    except InputError:
        return False
    same = jax.tree.map(lambda a, b: a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4), a, b)
    return all(jax.tree.leaves(same))
