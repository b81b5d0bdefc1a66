"""Students of few steps in the training step: the same however a batch is split, and resumed to the bit."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.diffusion import guidance, losses, parameterizations, processes, schedules, time_sampling
from diffusion_jax.diffusion.few_step import (
    consistency,
    distances,
    easy,
    guided,
    latent,
    pairs,
    progressive,
    stages,
    teachers,
)
from diffusion_jax.training.averages import Average
from diffusion_jax.training.hooks import Hook
from diffusion_jax.training.loop import fit
from experiments.strangers import small
from tests import changed, compilations
from tests.training.test_context import WAYS, D, same, trained

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

COSINE = schedules.bounded_cosine()
V = parameterizations.v(COSINE, parameterizations.angle(COSINE))
TABLE, INDEX = schedules.from_betas(schedules.linear_betas(20, 0.005, 0.3)), parameterizations.table_index(20)
EPS = parameterizations.eps(TABLE, INDEX)
LEVELS, RENOISING, EDM = consistency.levels(), consistency.renoising(), schedules.edm(consistency.HIGH)
GROWTH = stages.Stages(np.array([0, 2]), np.array([3, 5]))  # a finer grid from the third update on


def apply(params, x, time, *cond, dropout_keys=None):
    shift = sum((value[:, None] for one in cond for value in one.values()), jnp.zeros(1))
    return jnp.tanh(x @ params["w"] + jnp.cos(time / 300)[:, None] * params["b"] + shift / 9)


def told(keys, params, x0, context, *cond):
    make = guided.distillation(
        teachers.held(apply, V, guided.by_told_scale(guidance.replacing(label=0.0))), losses.of_v(COSINE)
    )
    loss = guided.told(make(apply, V, processes.gaussian(COSINE)), 1.0, 4.0)
    return loss(keys, params, x0, context, {"label": x0[:, 0]})


def entries(keys, params, x0, context, *cond):
    """Latent consistency of a guided teacher that says eps on a table."""
    teacher = teachers.held(apply, EPS, guided.by_told_scale(guidance.replacing(label=0.0)))
    points = consistency.solved(teacher, pairs.euler(TABLE))
    make = consistency.loss(points, distances.huber_of_entries(), consistency.averaged())
    loss = guided.told(make(apply, latent.consistent(EPS, INDEX), processes.gaussian(TABLE)), 1.0, 4.0)
    return loss(keys, params, x0, context, {"label": x0[:, 0]})


OF_LEVELS = (apply, parameterizations.consistency(RENOISING), consistency.process(LEVELS, RENOISING))
HEUN = consistency.solved(teachers.held(apply, parameterizations.edm(LEVELS)), pairs.heun(LEVELS))
GRID = progressive.grid(8)
JUDGED = distances.held(lambda params, x, y: distances.l2(x @ params["w"], y @ params["w"]), "teacher")
STUDENTS = {  # name: (loss, times, averages)
    "progressive": (
        progressive.distillation(COSINE, GRID, teachers.held(apply, V), losses.truncated_snr(COSINE))(
            apply, V, processes.gaussian(COSINE)
        ),
        progressive.steps(COSINE, GRID),
        {},
    ),
    "consistency": (
        consistency.loss(HEUN, JUDGED, consistency.averaged())(*OF_LEVELS),
        stages.neighbours(LEVELS, consistency.training_grid, stages.constant(18)),
        {"target": Average(lambda step: 0.1)},
    ),
    "consistency training": (
        consistency.loss(consistency.same_noise, distances.pseudo_huber(), weight=consistency.inverse_width(LEVELS))(
            *OF_LEVELS
        ),
        stages.neighbours(LEVELS, consistency.training_grid, GROWTH, stages.log_normal()),
        {},
    ),
    "latent consistency": (
        entries,
        stages.neighbours(TABLE, lambda points: latent.training_grid(20, 10), stages.constant(11)),
        {"target": Average(lambda step: 0.1)},
    ),
    "guided": (told, time_sampling.independent(time_sampling.uniform(1e-3)), {}),
}


def params_of(size):
    def init(key):
        return {"w": 0.3 * jax.random.normal(key, (size, size)), "b": jnp.zeros(size)}

    return init


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_is_the_same_however_the_batch_is_split(name):
    loss, times, averages = STUDENTS[name]
    held = {"teacher": {"w": 0.5 * np.eye(D, dtype=np.float32), "b": np.ones(D, np.float32)}}

    def of_batch(keys, params, batch, context):
        return loss(keys, params, batch["x"], context)

    def run(way, teacher=held):
        return trained(of_batch, params_of(D), optax.sgd(0.01), way, averages, teacher, times=times)[0]

    one = run("one device")
    for way in list(WAYS)[1:]:
        same(run(way)._replace(memory=()), one._replace(memory=()), 1e-5)
    # Control: it has learned, and from its teacher where it has one.
    assert np.abs(one.params["w"] - one.ema["w"]).max() > 1e-5
    other = run("one device", jax.tree.map(lambda x: 0.5 * x, held))
    moved = np.abs(other.params["w"] - one.params["w"]).max()
    assert moved == 0 if name == "consistency training" else moved > 1e-5


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_resumes_to_the_bit(name, tmp_path):
    """Stopped after three of five updates; the stage of the grid has changed before."""
    loss, times, averages = STUDENTS[name]

    def held():
        return {"teacher": {"w": 0.5 * np.eye(2, dtype=np.float32), "b": np.ones(2, np.float32)}}

    def run(workdir, steps, held=held):
        values = small.get_config()
        values.train.steps, values.log.sample_every, values.log.every = steps, 0, 0
        made = small.build(values)

        def of_batch(keys, params, batch, context):
            return loss(keys, params, batch["points"], context)

        made = changed.task(made, init=params_of(2), loss=of_batch, times=times, held=held)
        made = made._replace(optimization=made.optimization._replace(averages=averages))
        return fit(made, values, workdir, devices=jax.devices()[:2])

    def gone():
        raise AssertionError("the teacher is read once")

    whole = run(tmp_path / "whole", 5)
    run(tmp_path / "halves", 3)
    resumed = run(tmp_path / "halves", 5, held=gone)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)


GROWING = {  # name: (loss, times), of a grid that doubles and of pairs that grow closer, two updates a stage
    "doubling": (
        STUDENTS["consistency training"][0],
        stages.neighbours(LEVELS, consistency.training_grid, stages.doubling(2, 8, updates=6), stages.log_normal()),
    ),
    "easy tuning": (
        consistency.loss(consistency.same_noise, distances.pseudo_huber(0.0), weight=consistency.inverse_width(EDM))(
            apply, parameterizations.identity_at_zero(parameterizations.edm(EDM)), processes.gaussian(EDM)
        ),
        easy.times(each=2, stages=3),
    ),
}


@pytest.mark.parametrize("name", GROWING)
def test_a_run_compiles_nothing_where_its_stage_changes(name, tmp_path):
    """Three stages in six updates, whose pairs grow closer; after the first two calls the count stands still."""
    loss, times = GROWING[name]
    values = small.get_config()
    values.train.steps, values.log.checkpoint_every, values.log.snapshot_every = 6, 0, 0
    counts = []

    def of_batch(keys, params, batch, context):
        value, _ = loss(keys, params, batch["points"], context)
        return value, {"share": context.t.share}

    made = changed.task(small.build(values), init=params_of(2), loss=of_batch, times=times)
    made = made._replace(optimization=made.optimization._replace(averages={}))
    with compilations.counted() as compiled:
        hook = Hook(1, lambda step, state: counts.append(len(compiled)))
        fit(made, values, tmp_path / "run", devices=jax.devices()[:1], hooks=[hook])
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    shares = [line["share"] for line in lines]
    assert len(counts) == len(shares) == 6
    assert counts[0] > 0
    assert counts[1] == counts[-1]
    assert max(shares[:2]) > max(shares[4:])
