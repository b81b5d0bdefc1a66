"""Consistency losses beside those of the original codes, run as they are, of one network on the same noise.

  git clone https://github.com/openai/consistency_models
  git clone https://github.com/openai/consistency_models_cifar10
  python -m experiments.originals.consistency --torch consistency_models --jax consistency_models_cifar10

It needs the extra `parity`. Distillation (Heun), training and progressive distillation on Karras's grid, in the l1
and l2 distance, with a target of other parameters. Nothing of the originals is changed; packages that they import
and do not use here may be missing.
"""

import importlib
import importlib.abc
import importlib.machinery
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.app import cli
from diffusion_jax.core import rng
from diffusion_jax.core.protocols import OfLevel
from diffusion_jax.diffusion import losses as weights
from diffusion_jax.diffusion import parameterizations, schedules
from diffusion_jax.diffusion.few_step import consistency, distances, pairs, progressive, teachers
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.methods.few_step import consistency as method

MISSING = ("piq", "torchvision", "blobfile", "mpi4py", "haiku", "tensorflow", "tensorflow_datasets", "h5py")
BATCH, SHAPE, POINTS = 16, (3, 4, 5), 18
LEVELS, EDM = method.LEVELS, schedules.edm(consistency.HIGH)
DISTANCES = {"l1": distances.l1, "l2": distances.l2}
PARAMS = {"student": 1.0, "target": 0.8, "teacher": 1.3}


def network(xp, unit, params, x, time):
    """A network of no layers: entries depend on one another, on the time and on one parameter."""
    each = (-1, *[1] * len(SHAPE))
    return xp.tanh(params * x + x.reshape(BATCH, -1).mean(1).reshape(each) + xp.cos(time / unit).reshape(each))


class Unit(NamedTuple):
    """How a network is told a level, and the number that it divides that by."""

    time: OfLevel
    unit: float


TORCH, JAX = Unit(parameterizations.log_250, 1000.0), Unit(parameterizations.quarter_log, 1.0)


def main(arguments: list[str]):
    """The command `python -m experiments.originals.consistency`."""
    parser = cli.parser("experiments.originals.consistency", __doc__)
    parser.add_argument("--torch", type=Path, metavar="DIR", help="a clone of openai/consistency_models")
    parser.add_argument("--jax", type=Path, metavar="DIR", help="a clone of openai/consistency_models_cifar10")
    options = parser.parse_args(arguments)
    generator = np.random.default_rng(0)
    x0, noise = (generator.standard_normal((BATCH, *SHAPE), np.float32) for _ in range(2))
    sys.meta_path.append(Absent())
    rows = []
    if options.torch:
        sys.path.insert(0, str(options.torch))
        rows += by_torch(x0, noise, generator)
    if options.jax:
        sys.path.insert(0, str(options.jax))
        rows += by_jax(x0)
    print("| original | loss | distance | mean of theirs | largest difference, of it |\n|---|---|---|---|---|")
    for name, loss, distance, theirs, ours in rows:
        difference = np.max(np.abs(np.asarray(ours) - theirs)) / np.abs(np.mean(theirs))
        print(f"| {name} | {loss} | {distance} | {np.mean(theirs):.6g} | {difference:.1e} |")


# ---- The originals.


def by_torch(x0, noise, generator):
    """openai/consistency_models: losses of each example."""
    import torch

    original = importlib.import_module("cm.karras_diffusion")

    def model(params):
        return lambda x, time, **_: network(torch, TORCH.unit, params, x, time)

    def made(distillation, distance):
        with mock.patch.object(original, "LPIPS", mock.MagicMock()):
            return original.KarrasDenoiser(weight_schedule="uniform", distillation=distillation, loss_norm=distance)

    student, target, teacher = (model(PARAMS[name]) for name in ("student", "target", "teacher"))
    images = [torch.tensor(x) for x in (x0, noise)]
    for distance in DISTANCES:
        for loss, known in (("distillation", teacher), ("training", None)):
            place = generator.integers(0, POINTS - 1, BATCH)
            with mock.patch.object(torch, "randint", return_value=torch.tensor(place)):
                theirs = made(True, distance).consistency_losses(
                    student, images[0], POINTS, None, target, known, made(False, distance), images[1]
                )["loss"]
            ours = of_consistency(x0, noise, place, known is not None, DISTANCES[distance], TORCH, PARAMS["student"])
            yield "torch", loss, distance, theirs.numpy(), ours
    place = generator.integers(0, POINTS, BATCH)
    with mock.patch.object(torch, "randint", return_value=torch.tensor(place)):
        theirs = made(False, "l2").progdist_losses(
            student, images[0], POINTS, None, teacher, made(False, "l2"), images[1]
        )["loss"]
    yield (
        "torch",
        "halving",
        "l2",
        theirs.numpy(),
        of_halving(x0, noise, place, TORCH, teachers.one, PARAMS["student"]),
    )


def by_jax(x0):
    """openai/consistency_models_cifar10: the mean of the batch."""
    original = importlib.import_module("jcm.losses")
    sde_lib = importlib.import_module("jcm.sde_lib")
    key = jax.random.key(1)
    draws, noises = jax.random.split(key, 3)[:2]

    def apply(variables, x, time, train, mutable, rngs=None):
        out = network(jnp, JAX.unit, variables["params"], x, time)
        return (out, {}) if train else out

    shared = {"sde": sde_lib.KVESDE(N=POINTS), "model": SimpleNamespace(apply=apply), "train": True}
    batch = {"image": jnp.asarray(x0), "mask": jnp.ones(BATCH)}
    noise = jax.random.normal(noises, x0.shape)

    def rows(loss, distance, make, ours, **arguments):
        """The loss, and its derivative by the student's parameter."""

        def original_loss(student):
            with mock.patch.object(original.hk, "PRNGSequence", lambda key: iter(jax.random.split(key, 3))):
                return make(key, student, {}, batch, **arguments)[0]

        def our_loss(student):
            return ours(student).mean()

        pairs = zip(*(jax.value_and_grad(of)(PARAMS["student"]) for of in (original_loss, our_loss)), strict=True)
        for what, (theirs, found) in zip((loss, f"{loss}, gradient"), pairs, strict=True):
            yield "jax", what, distance, theirs, found

    for distance in DISTANCES:
        for loss, solver in (("distillation", "heun"), ("training", "euler")):
            make = original.get_consistency_loss_fn(
                ref_model=shared["model"],
                ref_params=PARAMS["teacher"],
                ref_states={},
                loss_norm=distance,
                solver=solver,
                dsm_target=loss == "training",
                **shared,
            )
            place = np.asarray(jax.random.randint(draws, (BATCH,), 0, POINTS - 1))
            ours = partial(of_consistency, x0, noise, place, loss == "distillation", DISTANCES[distance], JAX)
            yield from rows(loss, distance, make, ours, target_params=PARAMS["target"])
    make = original.get_progressive_distillation_loss_fn(**shared)
    place = np.asarray(jax.random.randint(draws, (BATCH,), 0, POINTS))
    ours = partial(of_halving, x0, noise, place, JAX, weights.truncated_snr(LEVELS))
    yield from rows("halving, truncated SNR", "l2", make, ours, target_params=PARAMS["teacher"], num_scales=POINTS)


# ---- Ours, of the same noise and places.


def applied(unit):
    return lambda params, x, time, dropout_keys=None: network(jnp, unit, params, x, time)


def corrupting(noise):
    """A process whose examples have the given noise; their keys are their numbers."""

    def corrupt(key, x0, t):
        return x0 + LEVELS.sigma(t) * jnp.asarray(noise)[number(key)], None

    def number(key):
        return jnp.argmax(jnp.all(jax.random.key_data(noise_keys()) == jax.random.key_data(key), axis=-1))

    return SimpleNamespace(corrupt=corrupt)


def keys():
    return jax.random.split(jax.random.key(0), BATCH)


def noise_keys():
    """What the losses make of `keys` for the noise."""
    return rng.split(keys(), 2)[0]


def of_consistency(x0, noise, place, distilled, distance, told, student):
    """Of each example; places count from the noisiest pair."""
    grid = consistency.training_grid(POINTS)
    pair = jax.tree.map(
        lambda each: jnp.asarray(each, jnp.float32)[place], pairs.of_times(LEVELS, grid[:-1], grid[1:])
    )
    context = Context(pair, averages={"target": PARAMS["target"]}, held={"teacher": PARAMS["teacher"]})
    teacher = teachers.held(applied(told.unit), parameterizations.edm(LEVELS, time=told.time))
    points = consistency.solved(teacher, pairs.heun(LEVELS)) if distilled else consistency.same_noise
    make = consistency.loss(points, distance, consistency.averaged())
    consistent = parameterizations.consistency(method.RENOISING, time=told.time)
    return make(applied(told.unit), consistent, corrupting(noise))(keys(), student, jnp.asarray(x0), context)[0]


def of_halving(x0, noise, place, told, weight, student):
    """Of each example."""
    grid = consistency.training_grid(2 * POINTS + 1)
    step = progressive.halvings(LEVELS, grid)
    step = jax.tree.map(lambda each: jnp.asarray(each, jnp.float32)[place], step)
    context = Context(step, held={"teacher": PARAMS["teacher"]})
    edm = parameterizations.edm(LEVELS, time=told.time)
    make = progressive.distillation(LEVELS, grid, teachers.held(applied(told.unit), edm), weight)
    return make(applied(told.unit), edm, corrupting(noise))(keys(), student, jnp.asarray(x0), context)[0]


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Stands in for packages that the originals import and that are not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in MISSING:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        return mock.MagicMock(__path__=[], __spec__=spec)

    def exec_module(self, module):
        pass


if __name__ == "__main__":
    cli.run(main)
