"""Several steps in one call: the same as one after another, wherever calls end."""

import contextlib
import json
from types import SimpleNamespace

import jax
import numpy as np
import optax
import pytest

from configs import swiss_roll
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.data.sources import Mapped
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.parallel.calls import plan
from diffusion_jax.parallel.replicated import DataParallel, to_host
from diffusion_jax.parallel.sharded import Sharded
from diffusion_jax.training import loop
from diffusion_jax.training.loop import fit
from diffusion_jax.training.state import init_state
from diffusion_jax.training.step import make_train_step
from tests import changed, compilations

pytestmark = pytest.mark.slow

STEPS, BATCH, SIZE = 7, 16, 8
SGD = optax.sgd(0.1)
TIMES = time_sampling.loss_aware(num=4, kept=2)


# ---- Which steps a call makes.


@pytest.mark.parametrize(
    ("start", "total", "most", "events", "ends"),
    [
        (0, 7, 3, [], [3, 6, 7]),
        (0, 7, 1, [5], [1, 2, 3, 4, 5, 6, 7]),
        (0, 12, 5, [4, 6], [4, 6, 8, 12]),
        (0, 6, 4, [0, 3], [3, 6]),
        (5, 12, 4, [10], [9, 10, 12]),  # going on from a step between
        (9, 12, 100, [10], [10, 12]),
        (7, 7, 3, [5], []),
    ],
)
def test_calls_end_where_something_is_due(start, total, most, events, ends):
    found = list(plan(start, total, most, events))
    assert [steps[-1] for steps in found] == ends
    assert [step for steps in found for step in steps] == list(range(start + 1, total + 1))


# ---- What they compute.


def init(key):
    return {"weight": 0.3 * jax.random.normal(key, (SIZE, SIZE)), "bias": jax.numpy.zeros(SIZE)}


def loss(keys, params, batch, context):
    noise = rng.normal_like(rng.each(keys, 0), batch["x"])
    hidden = jax.numpy.tanh(batch["x"] + context.t[:, None] * noise)
    return ((hidden @ params["weight"] + params["bias"] - noise) ** 2).mean(1), {}


class Trained:
    """Parameters, losses and compiled programs after `STEPS` steps, in calls of `lengths`."""

    def __init__(self, parallel, compiled, lengths, most=None):
        batches = iter(np.random.default_rng(0).standard_normal((STEPS, BATCH, SIZE)).astype(np.float32))
        self.losses, self.programs = [], []
        state = parallel.hold(parallel.make(lambda key: init_state(init, SGD, TIMES, key), jax.random.key(1)))
        self.before = state
        with compilations.counted() as programs:
            for length in lengths:
                given = [parallel.shard({"x": next(batches)}) for _ in range(length)]
                state, metrics = compiled(state, given if most else given[0])
                assert most is None or metrics["loss"].shape == (most,)
                self.losses += np.atleast_1d(metrics["loss"])[:length].tolist()
                assert not np.atleast_1d(metrics["loss"])[length:].any()
                self.programs.append(len(programs))
        self.after, self.state = state, to_host(state)


@pytest.fixture(scope="module", params=["mapped", "spread"])
def parallel(request):
    devices = jax.devices()[:4]
    return DataParallel(devices) if request.param == "mapped" else Sharded(devices, least=SIZE)


@pytest.fixture(scope="module")
def step(parallel):
    return make_train_step(loss, TIMES, SGD, 0.9, 3, shares=parallel.shares)


@pytest.fixture(scope="module")
def one_by_one(parallel, step):
    return Trained(parallel, parallel.train_step(step), [1] * STEPS)


@pytest.fixture(scope="module")
def in_fours(parallel, step):
    return Trained(parallel, parallel.train_steps(step, most=4), [4, 3], most=4)


def far(one, other) -> float:
    """The largest difference of weights and what is remembered, which are of size 0.3 to 2."""
    pairs = zip(jax.tree.leaves(one.state), jax.tree.leaves(other.state), strict=True)
    return max(float(np.abs(x.astype(float) - y).max()) for x, y in pairs)


def test_steps_in_one_call_are_steps_one_after_another(one_by_one, in_fours):
    assert in_fours.state.step == STEPS
    np.testing.assert_allclose(in_fours.losses, one_by_one.losses, rtol=1e-6)
    assert far(in_fours, one_by_one) < 1e-6
    assert len(set(in_fours.losses)) == STEPS


def test_where_calls_end_does_not_change_a_bit(parallel, step, in_fours):
    compiled = parallel.train_steps(step, most=4)
    otherwise = Trained(parallel, compiled, [1, 4, 2], most=4)
    assert otherwise.losses == in_fours.losses
    assert far(otherwise, in_fours) == 0
    assert otherwise.programs[0] >= 1
    assert otherwise.programs == otherwise.programs[:1] * 3  # a shorter call is the same program


def test_one_step_a_call_is_the_step(parallel, step, one_by_one):
    alone = Trained(parallel, parallel.train_steps(step, most=1), [1] * STEPS, most=1)
    assert alone.losses == one_by_one.losses
    assert far(alone, one_by_one) == 0


def test_the_state_stays_where_it_was_and_the_one_given_away_is_gone(in_fours):
    for before, after in zip(jax.tree.leaves(in_fours.before), jax.tree.leaves(in_fours.after), strict=True):
        assert before.is_deleted()
        assert after.sharding.is_equivalent_to(before.sharding, after.ndim)


def test_that_comparison_can_fail(parallel, step, in_fours):
    """Control: the examples of each batch the other way round meet other noise, and weights differ."""

    def turned(state, batch, held):
        return step(state, jax.tree.map(lambda x: x[::-1], batch), held)

    compiled = parallel.train_steps(turned, most=4)
    assert far(Trained(parallel, compiled, [4, 3], most=4), in_fours) > 1e-3


# ---- Runs.


def config(steps_per_call, steps=20):
    values = swiss_roll.get_config()
    values.train.update(steps=steps, steps_per_call=steps_per_call, batch_size=16, warmup_steps=1, ema_decay=0.5)
    values.log.update(every=5, checkpoint_every=10, sample_every=0)
    return values


def fitted(workdir, values, experiment=None):
    return to_host(fit(experiment or swiss_roll.build(values), values, workdir, devices=jax.devices()[:1]))


def lines(workdir) -> dict[int, float]:
    told = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return {line["step"]: line["loss"] for line in told}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return fitted(workdir, config(4)), workdir


def test_a_run_of_calls_is_logged_and_saved_as_one_of_steps(whole, tmp_path):
    state = fitted(tmp_path, config(1))
    assert lines(tmp_path).keys() == lines(whole[1]).keys() == {5, 10, 15, 20}
    for step, found in lines(whole[1]).items():
        assert found == pytest.approx(lines(tmp_path)[step], rel=1e-5)
    names = [{path.name for path in (workdir / "checkpoints").iterdir()} for workdir in (tmp_path, whole[1])]
    assert names[0] == names[1] == {"10", "20"}
    # Adam's steps have the size of the learning rate, 1e-3, whatever the gradient.
    for x, y in zip(jax.tree.leaves(state.params), jax.tree.leaves(whole[0].params), strict=True):
        np.testing.assert_allclose(x, y, atol=1e-5)


def test_a_run_that_stopped_between_two_calls_goes_on_to_the_bit(whole, tmp_path, monkeypatch):
    """The third call ends with step 9. What follows is in calls of other lengths."""
    stop = SimpleNamespace(signal=15, requested=lambda call: call == 3)
    with monkeypatch.context() as patch:
        patch.setattr(loop.interrupt, "listening", lambda: contextlib.nullcontext(stop))
        with pytest.raises(SystemExit):
            fitted(tmp_path, config(4))
    assert (tmp_path / "checkpoints" / "9").is_dir()
    for x, y in zip(jax.tree.leaves(fitted(tmp_path, config(4))), jax.tree.leaves(whole[0]), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_loss_that_is_not_finite_within_a_call_is_named(tmp_path):
    values = config(4)

    def broken(count):
        return jax.numpy.where(count < 11, 1e-3, jax.numpy.inf)

    experiment = changed.trained_by(swiss_roll.build(values), optax.sgd(broken))
    with pytest.raises(RunError, match=r"not finite at step 13: .*checkpoint of step 10 is intact"):
        fitted(tmp_path, values, experiment)


def test_an_example_that_cannot_be_read_loses_no_step(whole, tmp_path):
    """It is met before a checkpoint is due. What was made since the last is saved, and mended data go on from it."""
    values, good = config(4), swiss_roll.build(config(4))
    source, read = good.data.source("train"), []

    def reading(index):
        read.append(index)
        if len(read) > 14 * values.train.batch_size:  # in the batch of step 15
            raise InputError(f"example {index} is damaged")
        return source[index]

    damaged = good._replace(data=good.data._replace(source=lambda split: Mapped(range(len(source)), reading)))
    with pytest.raises(RunError, match=r"example \d+ is damaged; mend or remove it.*step 1[1-4] is intact"):
        fitted(tmp_path, values, damaged)
    latest = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert 10 < latest < 15
    for x, y in zip(jax.tree.leaves(fitted(tmp_path, values)), jax.tree.leaves(whole[0]), strict=True):
        np.testing.assert_array_equal(x, y)
