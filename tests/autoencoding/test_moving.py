"""Codebooks that are moving averages, against NumPy, however a batch is split; and dead codes, which are revived."""

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.autoencoding import codes, moving, objectives, quantizers
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.parallel.replicated import DataParallel
from diffusion_jax.parallel.sharded import Sharded
from diffusion_jax.training import codebooks, optimizers
from diffusion_jax.training.loop import fit
from diffusion_jax.training.state import init_state
from diffusion_jax.training.step import make_train_step
from experiments.strangers import small
from tests import changed

pytestmark = pytest.mark.slow

BATCH, P, D, K, DECAY, LEAST, STEPS = 16, 3, 2, 8, 0.8, 0.4, 8
X = np.random.default_rng(0).normal(size=(STEPS, BATCH, P, D))
START = np.random.default_rng(1).normal(size=(K, D))
FAR = np.concatenate([START[:-2], np.full((2, D), 100.0)])
WAYS = {
    "one device": lambda: (DataParallel(jax.devices()[:1]), 1),
    "four parts": lambda: (DataParallel(jax.devices()[:1]), 4),
    "sixteen parts": lambda: (DataParallel(jax.devices()[:1]), 16),
    "eight devices": lambda: (DataParallel(jax.devices()[:8]), 1),
    "spread, in parts": lambda: (Sharded(jax.devices()[:4], least=1), 2),
}
TRAIN = SimpleNamespace(batch_size=BATCH, learning_rate=0.0, clip_norm=1e-3)  # clipping is for the others alone


def still(train):
    return optimizers.Optimizer(optax.sgd(train.learning_rate))


def of_params(params):
    return params["codebook"]


def loss(teach):
    """Of vectors that are data: all that moves is the codebook."""
    bottleneck = quantizers.vector_quantized(lambda params: moving.codes(of_params(params)), teach=teach)
    code = codes.coder(lambda params, x: Gaussian(x), bottleneck)
    return objectives.loss(code, lambda params, z: Gaussian(z * params["scale"], 1.0))


@functools.cache
def program(way):
    """`first codes -> the codebook after each step on X`, by a step that is compiled once."""
    parallel, accumulate = WAYS[way]()
    of_batch = loss(moving.by_average(of_params, BATCH))
    optimizer = optimizers.by_part(still, codebook=codebooks.followed(DECAY, LEAST))(TRAIN).transformation
    times = time_sampling.none()

    def of_examples(keys, params, batch, context):
        return of_batch(keys, params, batch["x"], context)

    step = parallel.train_step(make_train_step(of_examples, times, optimizer, 0.9, 3, accumulate, parallel.shares))

    def trained(start=START):
        def init(key):
            return {"codebook": moving.start(jnp.asarray(start)), "scale": jnp.ones(())}

        state, found = parallel.hold(init_state(init, optimizer, times, jax.random.key(0))), []
        for x in X:
            state, _ = step(state, parallel.shard({"x": x}))
            found.append(jax.device_get(state.params["codebook"]))
        return found

    return trained


def by_hand(share=1.0):
    """Counts and sums after each step, of the whole batch at once, of which a `share` is counted."""
    counts, sums = np.ones(K), START
    for x in X:
        smooth = (counts + 1e-5) / (counts.sum() + K * 1e-5) * counts.sum()
        near = np.eye(K)[((x[:, :, None] - sums / smooth[:, None]) ** 2).sum(-1).argmin(-1)]
        counts = DECAY * counts + (1 - DECAY) * share * near.sum((0, 1))
        sums = DECAY * sums + (1 - DECAY) * share * np.einsum("bpk,bpd->kd", near, x)
        yield counts, sums


@pytest.mark.parametrize("way", WAYS)
def test_the_codebook_is_the_same_however_a_batch_is_split(way, x64):
    found = program(way)()
    for codebook, (counts, sums) in zip(found, by_hand(), strict=True):
        np.testing.assert_allclose(codebook["counts"], counts, rtol=1e-12)
        np.testing.assert_allclose(codebook["sums"], sums, rtol=1e-12, atol=1e-12)
    assert counts.min() > LEAST  # none was dead,
    assert np.abs(sums - START).max() > 0.1  # and all that moved is this
    np.testing.assert_array_equal(codebook["offers"], 0)


@pytest.mark.parametrize("way", WAYS)
def test_dead_codes_are_revived_the_same_however_a_batch_is_split(way, x64):
    """Two codes are out of reach. Each comes back among the vectors of a batch, taken once."""
    found = program(way)(FAR)
    for codebook, same in zip(found, program("one device")(FAR), strict=True):
        for name in codebook:
            np.testing.assert_allclose(codebook[name], same[name], rtol=1e-12, atol=1e-12)
    for code in (K - 2, K - 1):
        # Not taken it counts decay^n, below .4 after five batches; where it is offered nothing it waits.
        far = [codebook["sums"][code].max() / codebook["counts"][code] > 50 for codebook in found]
        when = far.index(False)
        assert when >= 4
        assert found[when]["counts"][code] == pytest.approx(1, abs=1e-12)
        assert np.abs(found[when]["sums"][code]).max() <= np.abs(X[when]).max()


def test_those_comparisons_can_fail():
    """Controls: counts and sums that are the mean of eight devices' own, and codebooks that are averaged."""
    *_, (counts, sums) = by_hand()
    *_, (fewer, less) = by_hand(share=1 / 8)
    assert np.abs(less / fewer[:, None] - sums / counts[:, None]).max() > 0.01
    each = []
    for x in X[0].reshape(8, 2, P, D):  # each of eight devices with its own two examples
        near = np.eye(K)[((x[:, :, None] - START) ** 2).sum(-1).argmin(-1)]
        n, m = near.sum((0, 1)), np.einsum("bpk,bpd->kd", near, x)
        each.append((DECAY * START + (1 - DECAY) * m) / (DECAY + (1 - DECAY) * n)[:, None])
    counts, sums = next(by_hand())
    assert np.abs(np.mean(each, axis=0) - sums / counts[:, None]).max() > 0.01


def test_the_revived_begin_anew_and_the_others_go_on(x64):
    """By hand; N and m are both set, for an m of which only N was set would be another code."""
    codebook = {"counts": [0.1, 5.0, 0.1], "sums": [[9.0, 9], [5, 10], [9, 9]], "offers": [0.0] * 3}
    codebook = {name: jnp.array(value) for name, value in codebook.items()} | {"offered": jnp.zeros((3, 2))}
    seen = {"counts": [0.0, 10, 0], "sums": [[0.0, 0], [20, 10], [0, 0]], "offers": [2.0, 3, 0]}
    seen = {name: jnp.array(value) for name, value in seen.items()} | {
        "offered": jnp.array([[1.0, 3], [8, 8], [0, 0]])
    }
    found = moving.moved(codebook, seen, 0.9, 0.5)
    np.testing.assert_allclose(found["counts"], [1, 5.5, 0.09])
    np.testing.assert_allclose(found["sums"], [[0.5, 1.5], [6.5, 10], [8.1, 8.1]])
    np.testing.assert_array_equal(found["offered"], 0)
    # Control: nothing is revived below 0.
    np.testing.assert_allclose(moving.moved(codebook, seen, 0.9, 0.0)["sums"][0], [8.1, 8.1])


def test_each_code_is_offered_about_one_vector_of_a_batch(x64):
    """The number of offers is binomial: seed 7, 4000 examples, five deviations: false alarms 1e-5 for eight codes."""
    batch, reps = 16, 4000
    keys = rng.per_example(jax.random.key(7), jnp.arange(reps))
    z, indices = jnp.ones((reps, P, D)), jnp.zeros((reps, P), jnp.int32)

    def offers(batch):
        def cost(codebook):
            teach = moving.by_average(of_params, batch)
            return teach({"codebook": codebook}, keys, z, indices, START).sum()

        return np.asarray(jax.jit(jax.grad(cost))(moving.start(jnp.asarray(START)))["offers"])

    def normalised(found):
        expected = reps / batch  # each code is offered one in a batch
        return np.abs(found - expected) / np.sqrt(expected)

    assert normalised(offers(batch)).max() < 5
    assert normalised(offers(2 * batch)).min() > 5  # control: half as many


def test_smoothing_keeps_the_mass_and_finite_codes():
    codebook = moving.start(jnp.ones((K, D))) | {"counts": jnp.array([0.0, *range(1, K)])}
    found = moving.codes(codebook)
    assert np.isfinite(found).all()
    np.testing.assert_allclose((1 / found[:, 0]).sum(), sum(range(K)), rtol=1e-6)
    np.testing.assert_allclose(moving.codes(moving.start(jnp.asarray(START, jnp.float32))), START, rtol=1e-6)


@pytest.mark.exhaustive
def test_halves_make_a_whole_to_the_bit(tmp_path):
    def experiment(values):
        made = small.build(values)
        teach = moving.by_average(of_params, values.train.batch_size)
        of_batch = loss(teach)

        def init(key):
            start = jnp.concatenate([jax.random.normal(key, (K - 2, D)), jnp.full((2, D), 1e3)])
            return {"codebook": moving.start(start), "scale": jnp.ones(())}

        def of_points(keys, params, batch, context):
            return of_batch(keys, params, batch["points"][:, None], context)

        optimizer = optimizers.by_part(still, codebook=codebooks.followed(0.7, 0.5))
        train = SimpleNamespace(batch_size=values.train.batch_size, learning_rate=0.1)
        task = changed.task(made, init=init, loss=of_points, times=time_sampling.none())
        return changed.trained_by(task, optimizer(train).transformation)

    def run(workdir, steps):
        values = small.get_config()
        values.train.steps = steps
        return fit(experiment(values), values, workdir, devices=jax.devices()[:2])

    run(tmp_path / "halves", 4)
    halves, whole = run(tmp_path / "halves", 8), run(tmp_path / "whole", 8)
    for a, b in zip(jax.tree.leaves(halves), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(whole.params["codebook"]["sums"]).max() < 50  # the dead were revived on the way


@pytest.mark.parametrize("wrong", [{"decay": 1.0}, {"decay": -0.1}, {"least": 1.0}, {"decay": float("nan")}], ids=str)
def test_averages_that_cannot_be_are_refused(wrong):
    with pytest.raises(InputError, match=f"a codebook with {next(iter(wrong))}="):
        codebooks.followed(**wrong)


def test_batches_and_codebooks_that_cannot_be_are_refused():
    with pytest.raises(InputError, match="batches of 0 examples"):
        moving.by_average(of_params, 0)
    with pytest.raises(InputError, match=r"a codebook of codes \[0, 2\]; give at least one"):
        moving.start(jnp.zeros((0, 2)))
