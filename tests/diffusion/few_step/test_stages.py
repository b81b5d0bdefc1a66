"""What changes along the training of consistency models: published numbers, laws, and no second compilation."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import parameterizations, schedules
from diffusion_jax.diffusion.few_step import consistency, distances, easy, pairs, stages
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.parallel.replicated import DataParallel
from diffusion_jax.training.averages import Average
from diffusion_jax.training.state import init_state
from diffusion_jax.training.step import make_train_step
from tests import compilations
from tests.diffusion.few_step import linear

LEVELS = consistency.levels()


def test_the_grid_of_consistency_training_grows_by_its_formula():
    found = stages.growing()
    assert (found.points[0], found.points[-1]) == (2, 151)
    k = np.random.default_rng(0).integers(0, 800_000, 1000)
    wanted = np.ceil(np.sqrt(k / 800_000 * (151**2 - 4) + 4) - 1) + 1
    np.testing.assert_array_equal(found.points[found.at(k)], wanted)
    assert found.points[found.at(10**9)] == 151
    # Every change is where the integers say: the first k with k (151^2 - 4) / K + 4 > m^2.
    for start, points in list(zip(found.starts, found.points, strict=True))[1:]:
        needed = (int(points) - 1) ** 2 - 4
        assert int(start) * (151**2 - 4) > needed * 800_000 >= (int(start) - 1) * (151**2 - 4)


def test_the_target_of_consistency_training_slows_down():
    decay = stages.mu(stages.growing(), 2, 0.9)
    assert decay(0) == pytest.approx(0.9, abs=1e-7)
    assert decay(799_999) == pytest.approx(0.998605, abs=1e-6)
    assert abs(decay(0) - 0.81) > 0.05  # with N - 1 for N, as both codes have it
    with pytest.raises(InputError, match="first decay"):
        stages.mu(stages.growing(), 2, 1.0)


def test_the_grid_of_improved_training_doubles():
    found = stages.doubling()
    np.testing.assert_array_equal(found.points, [11, 21, 41, 81, 161, 321, 641, 1281])
    np.testing.assert_array_equal(found.starts, 50_000 * np.arange(8))
    np.testing.assert_array_equal(found.at(np.array([0, 49_999, 50_000, 399_999, 10**6])), [0, 0, 1, 7, 7])
    weight = consistency.inverse_width(LEVELS)
    grid = consistency.training_grid(1281)
    pair = pairs.of_times(LEVELS, grid[:-1], grid[1:])
    single = weight(pairs.Pair(*(jnp.asarray(each, jnp.float32) for each in pair)))
    np.testing.assert_allclose(single[jnp.array([-1, 0])], [25_585, 2.94], rtol=2e-3)
    np.testing.assert_allclose(single, -1 / np.diff(consistency.karras_levels(1281)), rtol=1e-6)
    with pytest.raises(InputError, match="at least 2 points, not 1"):
        stages.constant(1)
    with pytest.raises(InputError, match="6 updates are too few to double from 10 to 1280"):
        stages.doubling(updates=6)
    with pytest.raises(InputError, match="not from 20 to 10"):
        stages.doubling(20, 10)
    with pytest.raises(InputError, match="not 1 to 150 in 800000 updates"):
        stages.growing(1)


def test_pairs_follow_their_law():
    """Chances of the table, and 200 000 draws of seed 0 at two stages: within 5.3 standard errors in every pair (a
    false alarm in 10^7 each, 60 pairs). Control: the law of the mean +1.1."""
    both = stages.Stages(np.array([0, 7]), np.array([21, 41]))
    grids = [consistency.training_grid(int(points)) for points in both.points]
    _, sums = stages.tables(LEVELS, grids, stages.log_normal())
    times = stages.neighbours(LEVELS, consistency.training_grid, both, stages.log_normal())
    index = jnp.arange(200_000)
    for stage, updates in enumerate((6, 7)):
        points = both.points[stage]
        levels = consistency.karras_levels(points)
        z = [(math.log(level) + 1.1) / 2 for level in levels]
        mass = np.array([math.erf(a / math.sqrt(2)) - math.erf(b / math.sqrt(2)) for a, b in itertools.pairwise(z)])
        p = mass / mass.sum()
        np.testing.assert_allclose(np.diff(sums[stage, : points - 1], prepend=0), p, atol=2e-7)
        assert (sums[stage, points - 2 :] == 1).all()
        pair, weight = times.draw(jnp.int32(updates), jax.random.key(0), index, len(index))
        assert (weight == 1).all()
        place = np.abs(np.asarray(pair.t)[:, None] - consistency.training_grid(points)[None, :-1]).argmin(1)
        np.testing.assert_allclose(pair.u, consistency.training_grid(points)[place + 1], atol=1e-7)
        counts = np.bincount(place, minlength=points - 1)
        error = np.sqrt(len(index) * p * (1 - p)) + 1e-9

        def far(p, counts=counts, error=error):
            return (np.abs(counts - len(index) * p) / error).max()

        assert far(p) < 5.3
        assert far(stages.log_normal(1.1)(levels[:-1], levels[1:]) / 2) > 50
    above = consistency.karras_levels(1281)
    law = stages.log_normal()(above[:-1], above[1:])
    assert (law * (above[1:] > 1)).sum() / law.sum() == pytest.approx(0.29, abs=0.005)


def test_a_growing_grid_compiles_one_step():
    """Five stages in twelve updates, and a target that slows down; on one device as on two.

    The memory is the number of updates, with which a resumed run goes on.
    """
    grown = stages.growing(2, 6, 12)
    assert len(grown.points) >= 4
    times = stages.neighbours(LEVELS, consistency.training_grid, grown)
    apply, parameterization, init = linear.student(consistency.training_grid(7))
    loss = consistency.loss(consistency.same_noise, distances.l2, consistency.averaged())(
        apply, parameterizations.identity_at_zero(parameterization), linear.process_of(LEVELS)
    )
    decay = stages.mu(grown)
    averages, optimizer = {"target": Average(lambda step: 1 - decay(step))}, optax.sgd(1e-4)

    def told(*inputs):
        return loss(*inputs)[0], {"u": inputs[3].t.u}

    def run(devices):
        parallel = DataParallel(jax.devices()[:devices])
        state = parallel.hold(init_state(lambda key: init, optimizer, times, jax.random.key(0), averages))
        made = make_train_step(told, times, optimizer, 0.9, 3, shares=parallel.shares, averages=averages)
        step, batch, seen = parallel.train_step(made), parallel.shard(np.asarray(linear.X0)), []
        with compilations.counted() as compiled:
            for _ in range(12):
                state, metrics = step(state, batch)
                both = (np.asarray(tree["c"]) for tree in (state.params, state.averages["target"]))
                seen.append((len(compiled), float(metrics["u"]), *both))
        return jax.device_get(state), *zip(*seen, strict=True)

    state, counts, ends, params, targets = run(2)
    assert counts[-1] == counts[1]
    assert state.memory == 12
    assert ends[0] == 0  # 2 points: u is the smallest level
    assert ends[-1] > 0
    alone = run(1)
    for one, other in zip(jax.tree.leaves(alone[0]), jax.tree.leaves(state), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
    # The first update moves the target a tenth as far as the parameters; by the last it is mu(11) that holds it back.
    start = np.asarray(init["c"])
    np.testing.assert_allclose(targets[0] - start, 0.1 * (params[0] - start), rtol=1e-3, atol=1e-7)
    last = targets[-2] + (1 - float(decay(11))) * (params[-1] - targets[-2])
    np.testing.assert_allclose(targets[-1], last, rtol=1e-5)


# ---- Easy consistency tuning.


def test_pairs_of_easy_tuning():
    """Where r = 0, from when on: t <= ln 7 at stage 0, <= ln(5/3) at 1, never from 2; 40 000 draws of seed 0."""
    times = easy.times(each=10)
    index = jnp.arange(40_000)
    pair = {stage: times.draw(jnp.int32(10 * stage), jax.random.key(0), index, 1)[0] for stage in (0, 1, 2, 7)}
    level = 80 * np.asarray(pair[0].t, np.float64)
    for stage, bound in ((0, math.log(7)), (1, math.log(5 / 3))):
        clear = np.abs(level - bound) > 1e-4
        np.testing.assert_array_equal((pair[stage].u == 0)[clear], (level <= bound)[clear])
    # 81 and 59 in 100, within 5 standard errors of 0.0025 (a false alarm in 10^6).
    assert (pair[0].u == 0).mean() == pytest.approx(0.81, abs=0.0125)
    assert (pair[1].u == 0).mean() == pytest.approx(0.59, abs=0.0125)
    for stage in (2, 7):
        r = level * (1 - 2.0 ** -(stage + 1) * (1 + 8 / (1 + np.exp(level))))
        assert (r > 0).all()
        np.testing.assert_allclose(80 * pair[stage].u, r, rtol=1e-4)
        np.testing.assert_allclose(
            consistency.inverse_width(schedules.edm())(pair[stage]), 1 / (level - r), rtol=1e-4
        )
    logs = np.log(level)
    assert logs.mean() == pytest.approx(-1.1, abs=5 * 2 / 200)
    assert logs.std() == pytest.approx(2, abs=5 * 2 / 282)
    assert times.update(jnp.int32(3), None, None) == 4
    late = times.draw(jnp.int32(10**6), jax.random.key(0), index, 1)[0]
    np.testing.assert_array_equal(late.u, pair[7].u)


def test_the_loss_of_easy_tuning_begins_as_denoising():
    """At r = 0 the target is x0 itself, and nothing is NaN there, gradients included; by hand for EDM's function."""
    schedule = schedules.edm()
    function = parameterizations.identity_at_zero(parameterizations.edm(schedule))

    def apply(params, x, time, dropout_keys=None):
        return params["w"] * x + 0.1 * time[:, None]

    loss = consistency.loss(
        consistency.same_noise, distances.pseudo_huber(0.0), weight=consistency.inverse_width(schedule)
    )(apply, function, linear.process_of(schedule))
    level = np.array([0.5, 1.0, 3.0])
    share = np.array([1.0, 1.0, 0.6])
    pair = pairs.Pair(*(jnp.asarray(each, jnp.float32) for each in (level / 80, level * (1 - share) / 80, share)))
    params, keys = {"w": jnp.float32(0.3)}, jax.random.split(jax.random.key(0), 3)
    value, slope = jax.value_and_grad(
        lambda params: loss(keys, params, linear.X0[:3], Context(pair))[0].sum(), has_aux=False
    )(params)

    def f(x, sigma):
        total = sigma**2 + 0.25
        said = 0.3 * x / np.sqrt(total) + 0.1 * np.log(sigma) / 4
        return 0.25 / total * x + sigma * 0.5 / np.sqrt(total) * said

    x0, noise = np.asarray(linear.X0[0], np.float64), np.asarray(linear.NOISE, np.float64)
    wanted = sum(
        np.linalg.norm(f(x0 + t * noise, t) - (x0 if part == 1 else f(x0 + t * (1 - part) * noise, t * (1 - part))))
        / (t * part)
        for t, part in zip(level, share, strict=True)
    )
    assert value == pytest.approx(wanted, rel=1e-5)
    assert np.isfinite(slope["w"])
    assert rng.each(keys, 0).shape == (3,)
