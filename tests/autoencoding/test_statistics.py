"""Capacities and mean activations are statistics of a batch: the same however it is split, and after a kill."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.autoencoding import bottlenecks, codes, objectives, penalties
from diffusion_jax.autoencoding.statistics import observe
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.parallel.replicated import DataParallel
from diffusion_jax.parallel.sharded import Sharded
from diffusion_jax.training import optimizers
from diffusion_jax.training.loop import fit
from diffusion_jax.training.state import init_state
from diffusion_jax.training.step import make_train_step
from experiments.strangers import small
from tests import changed

pytestmark = pytest.mark.slow

BATCH, STEPS = 16, 6
X = np.random.default_rng(0).normal(size=(STEPS, BATCH, 2))
WAYS = {
    "eight devices": lambda: (DataParallel(jax.devices()[:8]), 1),
    "spread, in parts": lambda: (Sharded(jax.devices()[:4], least=1), 2),
}


def init(key):
    """One number of code for two of data, a rate that is above its capacity from the start, a unit's activation."""
    weights = {"encoder": jnp.array([2.0, 0.5]), "log_var": jnp.array(-3.0), "decoder": jnp.array([0.5, 0.1])}
    return {**weights, "statistics": {"rate": jnp.array(3.0), "unit": jnp.array([0.5])}}


def law(params, x):
    mean = (x @ params["encoder"])[:, None]
    return Gaussian(mean, jnp.full_like(mean, jnp.exp(params["log_var"])))


def unit(params, x):
    return Gaussian(jax.nn.sigmoid(x @ params["encoder"])[:, None], 0.0)


def decode(params, z):
    return Gaussian(z * params["decoder"], 0.1)


CAPACITY = objectives.capacity(1.0, 4, 10.0, lambda params: params["statistics"]["rate"])
SPARSITY = penalties.sparsity(0.1, 5.0, lambda params: params["statistics"]["unit"])
LOSSES = {
    "capacity": objectives.loss(codes.coder(law, bottlenecks.sampled), decode, CAPACITY),
    "sparsity": objectives.loss(codes.coder(unit, bottlenecks.mean), decode, penalties={"sparsity": SPARSITY}),
}


def still(train):
    return optimizers.Optimizer(optax.sgd(train.learning_rate))


OPTIMIZER = optimizers.by_part(still, statistics=optimizers.moving(0.5))(SimpleNamespace(learning_rate=0.01))


def trained(of_batch, parallel, accumulate):
    """The parameters after `STEPS` updates on X."""
    times = time_sampling.none()

    def of_examples(keys, params, batch, context):
        return of_batch(keys, params, batch["x"], context)

    transformation = OPTIMIZER.transformation
    step = make_train_step(of_examples, times, transformation, 0.9, 3, accumulate, parallel.shares)
    step = parallel.train_step(step)
    state = parallel.hold(init_state(init, transformation, times, jax.random.key(0)))
    for x in X:
        state, _ = step(state, parallel.shard({"x": x}))
    return jax.device_get(state.params)


@pytest.mark.parametrize("name", LOSSES)
def test_statistics_are_the_same_however_a_batch_is_split(name, x64):
    whole = trained(LOSSES[name], DataParallel(jax.devices()[:1]), 1)
    assert abs(whole["encoder"] - init(None)["encoder"]).max() > 1e-3
    for way in WAYS.values():
        found = trained(LOSSES[name], *way())
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12), found, whole)


def test_what_is_observed_is_left_out_of_the_logged_norm(x64):
    assert OPTIMIZER.observed == ("statistics",)
    of_batch, times = LOSSES["capacity"], time_sampling.none()

    def of_examples(keys, params, batch, context):
        return of_batch(keys, params, batch["x"], context)

    logged = {}
    for observed in ((), OPTIMIZER.observed):
        made = make_train_step(of_examples, times, OPTIMIZER.transformation, 0.9, 3, observed=observed)
        parallel = DataParallel(jax.devices()[:1])
        state = parallel.hold(init_state(init, OPTIMIZER.transformation, times, jax.random.key(0)))
        after, metrics = parallel.train_step(made)(state, parallel.shard({"x": X[0]}))
        logged[observed] = float(metrics["grad_norm"])
        seen = 2 * jax.device_get(after.params["statistics"]["rate"]) - 3.0  # the mean of 3 and what was observed
    np.testing.assert_allclose(logged[()] ** 2 - logged["statistics",] ** 2, seen**2, rtol=1e-9)


def test_that_comparison_can_fail(x64):
    """A sign, and a slope, of a share's own mean: what each device would take without the statistic."""

    def of_share(rate, params, context):
        return 10.0 * jnp.sign(rate.mean() - 1.0) * (rate - 1.0) + observe(params["statistics"]["rate"], rate)

    wrong = objectives.loss(codes.coder(law, bottlenecks.sampled), decode, of_share)
    whole = trained(wrong, DataParallel(jax.devices()[:1]), 1)
    split = trained(wrong, *WAYS["eight devices"]())
    assert abs(whole["encoder"] - split["encoder"]).max() > 1e-3


def test_the_capacity_is_the_mean_rates_of_the_global_batch(x64):
    """The statistic, against the batch's mean rate computed by hand."""
    params, rates = init(None), jnp.arange(BATCH, dtype=jnp.float64)

    def mean_loss(params):
        return CAPACITY(rates, params, SimpleNamespace(step=2)).mean()

    value, gradient = jax.value_and_grad(mean_loss)(params)
    np.testing.assert_allclose(value, 10.0 * abs(rates.mean() - 0.5))  # C = 1 nat half way up
    np.testing.assert_allclose(gradient["statistics"]["rate"], rates.mean())
    under = {**params, "statistics": {**params["statistics"], "rate": jnp.array(0.4)}}
    assert mean_loss(under) == -value  # below its capacity a rate is rewarded


def test_halves_make_a_whole_to_the_bit(tmp_path):
    def experiment(values):
        made = small.build(values)

        def of_points(keys, params, batch, context):
            return LOSSES["capacity"](keys, params, batch["points"], context)

        task = changed.task(made, init=init, loss=of_points, times=time_sampling.none())
        return changed.trained_by(task, OPTIMIZER.transformation)

    def run(workdir, steps):
        values = small.get_config()
        values.train.steps = steps
        return fit(experiment(values), values, workdir, devices=jax.devices()[:2])

    run(tmp_path / "halves", 3)
    halves, whole = run(tmp_path / "halves", 6), run(tmp_path / "whole", 6)
    for a, b in zip(jax.tree.leaves(halves), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)
