"""Parameters spread over devices: what is learned, saved and drawn does not depend on it.

SGD, because Adam hides a gradient of the wrong size: one that was summed over devices instead of averaged.
"""

import re
import shutil
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from diffusion_jax.app import sampling
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import toys
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.evaluation import quality
from diffusion_jax.methods import points
from diffusion_jax.parallel import sharded
from diffusion_jax.parallel.replicated import AXIS, DataParallel, to_host
from diffusion_jax.parallel.sharded import Sharded, spec
from diffusion_jax.training.experiment import SampleRequest
from diffusion_jax.training.loop import fit
from diffusion_jax.training.state import init_state
from diffusion_jax.training.step import make_train_step
from tests import changed, compilations

pytestmark = pytest.mark.slow

STEPS, BATCH, LEAST = 3, 16, 64
SPREAD = {"conv": True, "dense": True, "bias": False, "out": True}  # of the learner below
SGD = optax.sgd(0.3)


def spread_over(devices):
    return Sharded(jax.devices()[:devices], LEAST)


def mapped_over(devices):
    return DataParallel(jax.devices()[:devices])


def config(**train):
    values = points.default_config()
    values.model.update(features=128, layers=1)  # its largest arrays are just large enough to be split by default
    values.train.update({"batch_size": BATCH, "steps": 4, "warmup_steps": 2, **train})
    values.log.update(every=1, sample_every=4, checkpoint_every=2, samples=12, preview_steps=2)
    return values


def build(values):
    return points.build(values, source=lambda split: toys.swiss_roll(num=100))


class Learner(NamedTuple):
    """What a step needs, of few operations: each program compiles at once."""

    init: object
    loss: object
    times: object


@pytest.fixture(scope="module")
def learner():
    """A convolution, dropout and two layers, which tell the noise in small images."""
    shapes = {"conv": (3, 3, 2, 16), "dense": (16, 32), "bias": (32,), "out": (32, 2)}

    def init(key):
        return {name: 0.3 * jax.random.normal(rng.stream(key, name), shape) for name, shape in shapes.items()}

    def loss(keys, params, batch, context):
        noise = rng.normal_like(rng.each(keys, 0), batch["image"])
        x = batch["image"] + context.t[:, None, None, None] * noise
        axes = ("NHWC", "HWIO", "NHWC")
        h = jax.lax.conv_general_dilated(x, params["conv"], (1, 1), "SAME", dimension_numbers=axes)
        kept = jax.vmap(lambda key: jax.random.bernoulli(key, 0.8, (16,)))(rng.each(keys, 1))
        h = jax.nn.silu(h * kept[:, None, None]) @ params["dense"] + params["bias"]
        return ((jax.nn.silu(h) @ params["out"] - noise) ** 2).mean((1, 2, 3)), {}

    return Learner(init, loss, time_sampling.loss_aware(num=4, kept=2))


@pytest.fixture(scope="module")
def batches():
    return np.random.default_rng(0).standard_normal((STEPS, BATCH, 4, 4, 2)).astype(np.float32)


class Run(NamedTuple):
    state: object  # on the devices
    losses: list
    programs: list  # compiled up to each step
    given: object  # the state that the last step was given
    step: object


def train(learner, batches, parallel, accumulate=1):
    state = parallel.make(partial(init_state, learner.init, SGD, learner.times), jax.random.key(1))
    state = parallel.hold(state)
    of_share = make_train_step(learner.loss, learner.times, SGD, 0.9, 3, accumulate, parallel.shares)
    step = parallel.train_step(of_share)
    losses, programs = [], []
    with compilations.counted() as compiled:
        for batch in batches:
            given, (state, metrics) = state, step(state, parallel.shard({"image": batch}))
            losses.append(float(metrics["loss"]))
            programs.append(len(compiled))
    return Run(state, losses, programs, given, step)


@pytest.fixture(scope="module")
def on_one(learner, batches):
    return train(learner, batches, mapped_over(1))


@pytest.fixture(scope="module")
def alone(learner, batches):
    """The program for arrays that are spread, on one device."""
    return train(learner, batches, spread_over(1))


@pytest.fixture(scope="module")
def on_eight(learner, batches):
    return train(learner, batches, spread_over(8))


def far(one: Run, other: Run) -> float:
    """The largest difference of parameters, which are of size 0.3 and have moved by up to 0.1."""
    ours, theirs = (jax.tree.leaves(to_host(run.state.params)) for run in (one, other))
    return max(float(abs(x - y).max()) for x, y in zip(ours, theirs, strict=True))


def is_spread(leaf, devices) -> bool:
    return leaf.addressable_shards[0].data.size * devices == leaf.size


# ---- The rule.


@pytest.mark.parametrize(
    ("shape", "count", "found"),
    [
        ((3, 3, 128, 256), 8, PartitionSpec(None, None, None, AXIS)),
        ((256, 256), 8, PartitionSpec(AXIS)),  # of equal axes the first
        ((4096, 33), 8, PartitionSpec(AXIS)),
        ((33, 4104), 16, PartitionSpec()),  # none is divided
        ((100, 4104), 8, PartitionSpec(None, AXIS)),
        ((255, 256), 8, PartitionSpec()),  # too small
        ((), 8, PartitionSpec()),
        ((0, 2**20), 8, PartitionSpec()),
    ],
)
def test_the_largest_axis_that_the_devices_divide(shape, count, found):
    assert spec(shape, count) == found


# ---- Learning.


CASES = {
    "spread over 2": (partial(spread_over, 2), 1),
    "spread over 4, in 4 parts": (partial(spread_over, 4), 4),
    "mapped over 4, in 4 parts": (partial(mapped_over, 4), 4),
}


@pytest.mark.parametrize("case", CASES)
def test_neither_devices_nor_sharding_change_what_is_learned(case, learner, batches, on_one):
    parallel, accumulate = CASES[case]
    run = train(learner, batches, parallel(), accumulate)
    np.testing.assert_allclose(run.losses, on_one.losses, rtol=1e-5)
    assert far(run, on_one) < 2e-6
    np.testing.assert_array_equal(to_host(run.state.memory).count, to_host(on_one.state.memory).count)


def test_on_eight_devices_the_same_is_learned_by_arrays_that_are_spread(on_one, alone, on_eight):
    for run in (alone, on_eight):
        np.testing.assert_allclose(run.losses, on_one.losses, rtol=1e-5)
        assert far(run, on_one) < 2e-6
    for tree in (on_eight.state.params, on_eight.state.ema):
        assert {name: is_spread(leaf, 8) for name, leaf in tree.items()} == SPREAD
        placed = spread_over(8).place(tree)
        assert all(placed[name] is tree[name] for name in tree)  # nothing is copied to be read


@pytest.mark.parametrize("wrong", ["summed", "same keys"])
def test_that_comparison_can_fail(wrong, learner, batches, on_one, monkeypatch):
    """Controls: gradients that are summed over devices, and devices that count their examples from 0."""
    parallel = spread_over(2)
    if wrong == "summed":
        monkeypatch.setattr(Sharded, "_mean", lambda self, gradient, spec: gradient)
    else:
        parallel.shares = parallel.shares._replace(indices=lambda size: jnp.arange(size) % (size // 2))
    assert far(train(learner, batches, parallel), on_one) > 1e-3


def test_nothing_is_compiled_after_the_first_step_and_the_state_given_away_is_gone(on_eight):
    assert on_eight.programs[0] >= 1
    assert on_eight.programs[1:] == [on_eight.programs[0]] * (STEPS - 1)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((on_eight.given.params, on_eight.given.ema)))


def test_a_batch_and_its_parts_must_divide(learner, batches):
    with pytest.raises(InputError, match="8 devices; take 8 or"):
        spread_over(8).check_batch_size(12)
    with pytest.raises(InputError, match="4 examples a device in 3 parts"):
        train(learner, batches, spread_over(4), accumulate=3)


# ---- What the compiler makes of it.


def test_each_device_computes_its_examples_and_holds_its_share(alone, on_eight, batches):
    """Counted in the compiled programs of one device and of eight: operations, bytes of arguments, collectives."""
    lowered = [
        run.step.lower(run.state, spread_over(devices).shard({"image": batches[0]}))
        for run, devices in ((alone, 1), (on_eight, 8))
    ]
    # For the loss all three, and once more for the backward pass, but for the first: no gradient goes through that.
    assert lowered[1].as_text().count('"stablehlo.all_gather"(') == 3 + 2
    one, eight = (program.compile() for program in lowered)
    flops = [program.cost_analysis()["flops"] for program in (one, eight)]
    assert flops[1] < flops[0] / 7  # a little is not of examples
    held = [program.memory_analysis().argument_size_in_bytes for program in (one, eight)]
    entries = sum(2 * alone.state.params[name].size for name in SPREAD if SPREAD[name])  # parameters and average
    assert held[0] - held[1] == (4 * entries + batches[0].nbytes) * 7 // 8
    assert "reduce-scatter" in eight.as_text()


def test_a_chain_does_not_keep_the_parameters_it_has_gathered():
    """They are gathered within the loop over the steps: before it all of them would be there at once."""
    experiment, parallel = build(config()), Sharded()
    params = parallel.make(experiment.task.init, jax.random.key(0))
    rows = parallel.split((rng.per_example(jax.random.key(1), jnp.arange(BATCH)),))
    sample = experiment.sampling.samplers["ancestral"](SampleRequest(BATCH, 20, gather=parallel.gather))

    def gathers(options):
        """Before the loop and in all, in the compiled program."""
        text = jax.jit(sample, compiler_options=options).lower(params, *rows).compile().as_text()
        entry = re.search(r"^ENTRY .*?^}", text, re.MULTILINE | re.DOTALL)[0]
        return entry.count("all-gather("), text.count("all-gather(")

    before, every = gathers(sharded._OPTIONS)
    assert before == 0
    assert every == sum(AXIS in spec(x.shape, 8) for x in jax.tree.leaves(params)) > 0
    assert gathers(None)[0] == every  # control: without the options


# ---- Runs.


def values(parallel, steps):
    return config(fsdp=parallel == "spread", steps=steps)


def fitted(workdir, parallel, devices, steps):
    told = values(parallel, steps)
    return fit(build(told), told, workdir, devices=jax.devices()[:devices])


def same(one, other):
    for x, y in zip(jax.tree.leaves(to_host(one)), jax.tree.leaves(to_host(other)), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def gather(tmp_path_factory):
    """Four steps on eight devices, and the folder."""
    workdir = tmp_path_factory.mktemp("whole")
    return fitted(workdir, "spread", 8, 4), workdir


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("half")
    return fitted(workdir, "spread", 8, 2), workdir


@pytest.mark.parametrize(("parallel", "devices"), [("spread", 8), ("spread", 2), ("mapped", 2)])
def test_a_run_goes_on_on_other_devices(parallel, devices, half, gather, tmp_path):
    """What is restored is what was saved, to the bit; so is what follows, on as many devices in the same way."""
    workdir = tmp_path / "run"
    shutil.copytree(half[1], workdir)
    restored = fitted(workdir, parallel, devices, 2)
    same(restored, half[0])
    large = [leaf for leaf in jax.tree.leaves(restored) if leaf.size >= sharded.LEAST]
    assert large
    assert all(is_spread(leaf, devices) == (parallel == "spread") for leaf in large)
    state = fitted(workdir, parallel, devices, 4)
    if (parallel, devices) == ("spread", 8):
        same(state, gather[0])
    # Adam's steps have the size of the learning rate, 1e-3, whatever the gradient.
    for x, y in zip(jax.tree.leaves(to_host(state.params)), jax.tree.leaves(to_host(gather[0].params)), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)
    assert (workdir / "samples" / "step_00000004.png").read_bytes() == (
        gather[1] / "samples" / "step_00000004.png"
    ).read_bytes()


def test_a_run_on_whole_arrays_goes_on_on_spread_ones(tmp_path, half):
    saved = fitted(tmp_path, "mapped", 2, 2)
    same(saved.step, half[0].step)
    restored = fitted(tmp_path, "spread", 4, 2)
    same(restored, saved)
    assert any(is_spread(leaf, 4) for leaf in jax.tree.leaves(restored))


def test_a_given_start_is_where_both_start(tmp_path):
    """What `start` is given is NumPy's, wherever the parameters are; what it returns is spread."""
    seen = []

    def start(params):
        seen.append(params)
        return jax.tree.map(lambda x: x + 1e-3, params)

    told = values("spread", 1)
    still = changed.trained_by(changed.task(build(told), start=start), optax.set_to_zero())
    state = fit(still, told, tmp_path, devices=jax.devices())
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(seen))
    same(state.params, jax.tree.map(lambda x: x + 1e-3, seen[0]))
    same(state.ema, state.params)
    assert any(is_spread(leaf, 8) for leaf in jax.tree.leaves(state.params))


# ---- Drawing and measuring.


def test_samples_and_films_do_not_depend_on_it(gather):
    params = to_host(gather[0].ema)
    drawn_by = build(config()).sampling.samplers["ancestral"]
    keys = rng.per_example(jax.random.key(1), jnp.arange(11))
    request = SampleRequest(1, steps=20)

    def drawn(parallel):
        samples = sampling.draw(drawn_by, params, keys, (), request, 8, parallel=parallel)
        return samples, sampling.film(drawn_by, params, keys[:3], (), request, parallel)

    samples, film = drawn(Sharded())
    mapped, frames = drawn(DataParallel())
    assert samples.shape == (11, 2)
    assert film.shape == frames.shape == (21, 3, 2)
    np.testing.assert_allclose(samples, mapped, atol=1e-5)
    np.testing.assert_allclose(film, frames, atol=1e-5)
    np.testing.assert_allclose(film[-1], samples[:3], atol=1e-5)


def test_a_chain_reports_how_far_it_is():
    experiment, parallel, shares = build(config()), spread_over(4), []
    sample = parallel.sample(experiment.sampling.samplers["ancestral"](SampleRequest(8, 20, report=shares.append)))
    params = parallel.make(experiment.task.init, jax.random.key(0))
    sample(params, rng.per_example(jax.random.key(1), jnp.arange(8)))
    jax.effects_barrier()
    assert sorted({float(share) for share in shares}) == [0.5, 1.0]


class Found(NamedTuple):
    total: jax.Array


def test_likelihoods_do_not_depend_on_it():
    def function(params, keys, x0):
        return Found((x0 @ params).sum(1) + jax.vmap(jax.random.normal)(keys))

    params = np.random.default_rng(0).standard_normal((2, 64)).astype(np.float32)
    told = build(config()).data, toys.swiss_roll(num=100), 20, 8, 0
    one, other = (quality.likelihood(function, params, *told, by) for by in (DataParallel(), spread_over(8)))
    assert one["total"] == pytest.approx(other["total"], rel=1e-5)
    assert one["standard_error"] == pytest.approx(other["standard_error"], rel=1e-5)
