import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import time_sampling

pytestmark = pytest.mark.slow


def normal_cdf(x):
    return jax.scipy.stats.norm.cdf(x)


LAWS = {
    "uniform": (time_sampling.uniform(), lambda t: t),
    "logit_normal": (
        time_sampling.logit_normal(0.5, 0.8),
        lambda t: normal_cdf((jnp.log(t / (1 - t)) - 0.5) / 0.8),
    ),
    "log_normal": (time_sampling.log_normal(), lambda t: normal_cdf((jnp.log(80 * t) + 1.2) / 1.2)),
    "table": (time_sampling.table(1000), lambda t: t - 0.0005),
}
WAYS = {"independent": time_sampling.independent, "stratified": time_sampling.stratified}


def drawn(times, key, total=20_000):
    return times.draw(times.init(), key, jnp.arange(total), total)


@pytest.mark.parametrize(("law", "cdf"), LAWS.values(), ids=LAWS)
def test_training_times_have_the_law_they_name(law, cdf):
    """Kolmogorov-Smirnov, seed 0, 20,000 draws: a false alarm in 10^6 at 2.69 / sqrt(n). Control: another law."""
    num = 20_000
    t, weight = drawn(time_sampling.independent(law), jax.random.key(0), num)
    np.testing.assert_array_equal(weight, 1)
    assert float(t.min()) > 0
    assert float(t.max()) <= 1
    shares = np.sort(np.asarray(cdf(t), np.float64))
    steps = (np.arange(num) + 0.5) / num
    assert np.abs(shares - steps).max() < 2.69 / num**0.5
    assert np.abs(shares**1.2 - steps).max() > 2.69 / num**0.5


@pytest.mark.parametrize("law", [law for law, _ in LAWS.values()], ids=LAWS)
def test_the_ends_of_a_law_are_times(law):
    t = law(jnp.array([0.0, 2.0**-23, 1 - 2.0**-23]))
    assert ((t > 0) & (t <= 1)).all(), t


def test_strata_are_met_once_each_and_each_example_has_the_whole_law():
    total = 64
    times = time_sampling.stratified(lambda u: u)
    for seed in range(3):
        u, _ = drawn(times, jax.random.key(seed), total)
        np.testing.assert_array_equal(np.sort(np.floor(u * total + 1e-4) % total), np.arange(total))
    # The first example over many batches, as in the test above: uniform.
    num = 20_000
    keys = jax.random.split(jax.random.key(0), num)
    first = jax.vmap(lambda key: times.draw((), key, jnp.arange(1), total)[0][0])(keys)
    assert np.abs(np.sort(first) - (np.arange(num) + 0.5) / num).max() < 2.69 / num**0.5
    # What it is for: the mean over a batch varies less, by sqrt(64) = 8 for u itself.
    spread = {
        name: float(jnp.std(jax.vmap(lambda key, way=way: drawn(way(lambda u: u), key, total)[0].mean())(keys[:500])))
        for name, way in WAYS.items()
    }
    assert spread["stratified"] < 0.2 * spread["independent"]


@pytest.mark.parametrize("way", [*WAYS.values(), lambda law: time_sampling.loss_aware(1000)], ids=[*WAYS, "aware"])
def test_times_do_not_depend_on_how_the_batch_is_split(way):
    times = way(time_sampling.uniform())
    key, memory = jax.random.key(1), times.init()
    whole = times.draw(memory, key, jnp.arange(8), 8)
    parts = [times.draw(memory, key, jnp.arange(i, i + 2), 8) for i in range(0, 8, 2)]
    for a, b in zip(whole, jax.tree.map(lambda *x: jnp.concatenate(x), *parts), strict=True):
        np.testing.assert_array_equal(a, b)


def remembered(times, num, losses_of, batches=60, total=64):
    """Memory after some batches whose loss at the time i / num is losses_of[i - 1]."""

    @jax.jit
    def step(memory, key):
        t, _ = times.draw(memory, key, jnp.arange(total), total)
        return times.update(memory, t, losses_of[jnp.rint(t * num).astype(int) - 1]), None

    return jax.lax.scan(step, times.init(), jax.random.split(jax.random.key(0), batches))[0]


def test_a_loss_aware_batch_prefers_large_losses_and_weighs_them_down():
    """Shares within five standard errors (a false alarm in 10^6 for each of 8), seed 5, 100,000 draws."""
    num, floor = 8, 0.04
    losses = jnp.array([8.0, 1.0, 1.0, 2.0, 0.5, 0.5, 3.0, 0.0])
    times = time_sampling.loss_aware(num, floor=floor)
    memory = remembered(times, num, losses)
    np.testing.assert_array_equal(memory.losses, np.repeat(losses[:, None], 10, axis=1))
    total = 100_000
    t, weight = times.draw(memory, jax.random.key(5), jnp.arange(total), total)
    place = np.rint(np.asarray(t) * num).astype(int) - 1
    p = (1 - floor) * np.asarray(losses) / losses.sum() + floor / num
    shares = np.bincount(place, minlength=num) / total
    assert (np.abs(shares - p) < 5 * np.sqrt(p * (1 - p) / total)).all(), (shares, p)
    np.testing.assert_allclose(weight, 1 / (num * p[place]), rtol=1e-5)
    # The weighted mean is the plain mean, and varies less: that is the purpose.
    weighted = np.asarray(weight * losses[place])
    plain = float(losses.mean())
    assert abs(weighted.mean() - plain) < 5 * weighted.std() / total**0.5
    assert weighted.std() < 0.5 * float(losses.std())


def test_before_all_times_are_known_they_are_uniform():
    times = time_sampling.loss_aware(8)
    memory = times.update(times.init(), jnp.full(20, 1 / 8), jnp.arange(20.0))
    _, weight = times.draw(memory, jax.random.key(0), jnp.arange(50), 50)
    np.testing.assert_allclose(weight, 1, rtol=1e-6)
    # Of twenty losses of one time the last ten are kept.
    np.testing.assert_array_equal(np.sort(memory.losses[0]), np.arange(10.0, 20.0))
    np.testing.assert_array_equal(memory.count, [20, 0, 0, 0, 0, 0, 0, 0])


def test_the_history_is_what_a_loop_would_keep():
    """Batches with repeated times, against a Python list for each time."""
    num, kept = 5, 3
    times = time_sampling.loss_aware(num, kept=kept)
    update = jax.jit(times.update)
    rng, memory, lists = np.random.default_rng(0), times.init(), [[] for _ in range(num)]
    for _ in range(20):
        place, losses = rng.integers(0, num, 7), rng.random(7).astype(np.float32)
        memory = update(memory, (place + 1) / num, losses)
        for i, value in zip(place, losses, strict=True):
            lists[i].append(value)
    for i in range(num):
        np.testing.assert_array_equal(np.sort(memory.losses[i]), np.sort(lists[i][-kept:]))


@pytest.mark.parametrize("bad", [{"num": 0}, {"num": 5, "kept": 0}, {"num": 5, "floor": 2.0}])
def test_a_history_that_cannot_be_is_refused(bad):
    with pytest.raises(InputError, match="need num"):
        functools.partial(time_sampling.loss_aware, **bad)()
