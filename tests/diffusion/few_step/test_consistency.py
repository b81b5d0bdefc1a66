"""Consistency models on N(0, S^2): boundary, solvers, and the exact fixed points that students are trained to."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import parameterizations, samplers
from diffusion_jax.diffusion.few_step import consistency, distances, pairs, stages, teachers
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.training.averages import Average
from tests.diffusion.few_step import linear
from tests.diffusion.few_step.linear import S

LOW, HIGH = consistency.LOW, consistency.HIGH
LEVELS, WALKED = consistency.levels(), consistency.renoising()
PROCESS = consistency.process(LEVELS, WALKED)


def exact(level):
    """The consistency function is this times x: what lies at LOW on the same trajectory."""
    return np.sqrt((S**2 + LOW**2) / (S**2 + level**2))


def slope(level):
    return level / (S**2 + level**2)


# ---- The boundary, and the two schedules.


@pytest.mark.parametrize("time", [parameterizations.quarter_log, parameterizations.log_250])
def test_the_smallest_level_is_returned_to_the_bit(time):
    """float32, whatever the network says, compiled or not. Controls: one time on, and EDM's own coefficients."""
    consistent = parameterizations.consistency(WALKED, time=time)
    x, output = jax.random.normal(jax.random.key(0), (2, 50, 4)) * jnp.array([[[1.0]], [[1e3]]])
    for read in (consistent.read, jax.jit(consistent.read)):
        for t in (jnp.zeros(50), jnp.float32(0), 0.0):
            np.testing.assert_array_equal(read(output, x, t).mean, x)
    assert (consistent.read(output, x, jnp.float32(1e-5)).mean != x).any()
    edm = parameterizations.edm(LEVELS, time=time)
    assert np.abs(edm.read(output, x, jnp.zeros(50)).mean - x).max() > 1e-3
    unit = {parameterizations.quarter_log: 0.25, parameterizations.log_250: 250}[time]
    for network in (consistent, edm):
        told = network.scale(x, jnp.array([0.0, 1.0] * 25))[1][:2]
        np.testing.assert_allclose(told, unit * np.log([LOW, HIGH]), rtol=1e-6)


@pytest.mark.usefixtures("x64")
def test_training_corrupts_to_the_level_and_sampling_adds_what_lies_above_the_smallest():
    t = np.array([0.0, 1e-5, 1e-3, 0.5, 1.0])
    level = LOW + t * (HIGH - LOW)
    np.testing.assert_allclose(LEVELS.sigma(t), level, rtol=1e-15)
    np.testing.assert_allclose(WALKED.sigma(t), np.sqrt(level**2 - LOW**2), rtol=1e-9)
    assert WALKED.sigma(0.0) == 0 == WALKED.sigma(jnp.zeros(1))[0]
    x0 = jnp.ones(3)
    for time, reached in zip(t, level, strict=True):
        x_t, noise = PROCESS.corrupt(jax.random.key(0), x0, time)
        np.testing.assert_allclose(x_t, x0 + reached * noise, rtol=1e-12)
    kernel = PROCESS.bridge(1.0, t[1])(Gaussian(x0[None]), 0 * x0[None])
    np.testing.assert_allclose(kernel.var, level[1] ** 2 - LOW**2, rtol=1e-9)
    np.testing.assert_array_equal(kernel.mean, x0[None])
    # The prior is T e, of variance T^2 and not T^2 + S^2.
    draw = PROCESS.prior(jax.random.key(1), (4,))
    np.testing.assert_allclose(draw, HIGH * jax.random.normal(jax.random.key(1), (4,)), rtol=1e-12)


@pytest.mark.usefixtures("x64")
def test_the_law_at_the_smallest_level_is_kept_at_every_level():
    """Multistep sampling is `samplers.ancestral` of the process: V -> f^2 (V + tau^2 - LOW^2), from its kernels."""
    times = consistency.grid(np.array([HIGH, 20.0, 1.0, 0.1]))
    level = LEVELS.sigma(times)
    variance = HIGH**2
    for t, s in itertools.pairwise(times):
        kernel = PROCESS.bridge(t, s)(Gaussian(exact(LEVELS.sigma(t)) * jnp.ones((1, 1))), jnp.ones((1, 1)))
        variance = kernel.mean.item() ** 2 * variance + kernel.var.item()
        if t == times[0]:
            assert variance == pytest.approx((S**2 + LOW**2) * HIGH**2 / (S**2 + HIGH**2) + level[1] ** 2 - LOW**2)
    assert variance == pytest.approx(S**2 + LOW**2, rel=1e-5)
    # Control: renoised to the level itself, the law at LOW would be LOW^2 too wide.
    wide = consistency.process(LEVELS, LEVELS).bridge(times[0], times[3])(
        Gaussian(jnp.zeros((1, 1))), jnp.zeros((1, 1))
    )
    assert wide.var.item() - (level[3] ** 2 - LOW**2) == pytest.approx(LOW**2)


def test_a_chain_looks_at_its_levels_alone():
    times = consistency.grid_of_indices([0, 22, 39], 40)
    levels = consistency.karras_levels(40)
    np.testing.assert_allclose(LEVELS.sigma(times), levels[[0, 22, 39]], rtol=1e-12)
    assert (times[0], times[-1]) == (1, 0)
    looked = []

    def denoise(x, t):
        jax.debug.callback(lambda t: looked.append(float(t)), t)
        return Gaussian(x)

    keys = jax.random.split(jax.random.key(0), 2)
    jax.block_until_ready(samplers.solve(samplers.ancestral(PROCESS), times, denoise, jnp.ones((2, 3)), keys))
    jax.effects_barrier()
    np.testing.assert_allclose(looked, times[:2], rtol=1e-6)
    for wrong in ([0, 22], [0, 22, 40], [22, 0, 39], [39]):
        with pytest.raises(InputError, match="rise to the last of 40, 39, where it arrives"):
            consistency.grid_of_indices(wrong, 40)
    with pytest.raises(InputError, match=r"levels lie in \[0.002, 80\]"):
        consistency.grid([81.0])


# ---- Solvers.


def walked(solver, num):
    """Squared error at the top of a student without loss: the product of the solver's factors, level by level."""
    times = consistency.training_grid(num + 1)
    pair = pairs.of_times(LEVELS, times[:-1], times[1:])
    pair = pairs.Pair(*(jnp.asarray(each) for each in pair))

    def denoise(x, t):
        level = LEVELS.sigma(t)[:, None]
        return Gaussian(S**2 / (S**2 + level**2) * x)

    return np.asarray(solver(LEVELS)(denoise, jnp.ones((num, 1)), pair))[:, 0]


def factors(kind, num):
    """Of the solvers by hand, 1 + h a_t and 1 + h (a_t + (1 + h a_t) a_u) / 2."""
    levels = consistency.karras_levels(num + 1)
    h, (a_t, a_u) = np.diff(levels), (slope(levels[:-1]), slope(levels[1:]))
    return 1 + h * a_t if kind == "euler" else 1 + h * (a_t + (1 + h * a_t) * a_u) / 2


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("kind", "order"), [("euler", 1), ("heun", 2)])
def test_solvers_have_their_order(kind, order):
    found = {num: walked(getattr(pairs, kind), num) for num in (320, 640)}
    for num, each in found.items():
        np.testing.assert_allclose(each, factors(kind, num), rtol=1e-9)
    levels = consistency.karras_levels
    # A consistency function's loss under the exact teacher falls 16 and 64 times where the neighbours double.
    loss = {
        num: np.mean(
            (exact(levels(num + 1)[1:]) * each - exact(levels(num + 1)[:-1])) ** 2 * levels(num + 1)[:-1] ** 2
        )
        for num, each in found.items()
    }
    assert loss[320] / loss[640] == pytest.approx(4 ** (order + 1), rel=0.1)
    error = {num: abs(np.prod(each) / exact(HIGH) - 1) for num, each in found.items()}
    assert error[320] / error[640] == pytest.approx(2**order, rel=0.1)


# ---- Students.

NUM = 7
TIMES = consistency.training_grid(NUM)
NEIGHBOURS = stages.neighbours(LEVELS, consistency.training_grid, stages.constant(NUM))
APPLY, X0, INIT = linear.student(TIMES)
FUNCTION = parameterizations.identity_at_zero(X0)
TEACHER = linear.optimal(LEVELS)
HELD = {"teacher": TEACHER[2]}
MU = 0.5


def even(pair):
    """A weight with which every number of the student learns as fast."""
    return 1 / (S**2 + LEVELS.sigma(pair.t) ** 2)


def distilled(solver, target=consistency.itself):
    points = consistency.solved(teachers.held(*TEACHER[:2]), solver(LEVELS))
    return consistency.loss(points, distances.l2, target, even)(APPLY, FUNCTION, linear.process_of(LEVELS))


TRAINING = consistency.loss(consistency.same_noise, distances.l2, weight=even)(
    APPLY, FUNCTION, linear.process_of(LEVELS)
)


def products(each):
    """A student's numbers from the top down where every pair's factor is `each`, [N - 1]."""
    return np.cumprod(each[::-1])[::-1]


def test_a_distilled_student_is_the_product_of_the_solvers_factors():
    """With the target an average of the student, Euler; with the student itself, Heun. f* is another."""
    averages = {"target": Average(lambda step: 1 - MU)}
    by_average = distilled(pairs.euler, consistency.averaged())
    state, told = linear.trained(by_average, NEIGHBOURS, INIT, 600, averages=averages, held=HELD)
    np.testing.assert_allclose(state.params["c"][:-1], products(factors("euler", NUM - 1)), rtol=1e-4)
    np.testing.assert_allclose(state.averages["target"]["c"], state.params["c"], rtol=1e-4)
    assert told[-1] < 1e-9 < told[0]
    state, _ = linear.trained(distilled(pairs.heun), NEIGHBOURS, INIT, 600, held=HELD)
    np.testing.assert_allclose(state.params["c"][:-1], products(factors("heun", NUM - 1)), rtol=1e-4)
    assert abs(state.params["c"][0] / exact(HIGH) - 1) > 0.05
    # Control: with the teacher's denoiser for a target the student is one step better than that, and no more.
    frozen = {"c": jnp.asarray(S**2 / (S**2 + consistency.karras_levels(NUM) ** 2), jnp.float32)}
    denoising = distilled(pairs.euler, lambda params, context: frozen)
    state, _ = linear.trained(denoising, NEIGHBOURS, INIT, 600, held=HELD)
    assert state.params["c"][0] < exact(HIGH) / 20


def test_consistency_training_has_the_fixed_point_of_eulers_distillation():
    """And its loss never falls to 0: of a pair m_u^2 S^2 (t - u)^2 / (S^2 + t^2) is left."""
    state, told = linear.trained(TRAINING, NEIGHBOURS, INIT, 600)
    t, u = (consistency.karras_levels(NUM)[part] for part in (slice(None, -1), slice(1, None)))
    each = (S**2 + u * t) / (S**2 + t**2)
    np.testing.assert_allclose(each, factors("euler", NUM - 1), rtol=1e-12)
    found = products(each)
    np.testing.assert_allclose(state.params["c"][:-1], found, rtol=1e-4)
    left = np.append(found[1:], 1.0) ** 2 * S**2 * (t - u) ** 2 / (S**2 + t**2)
    mean = np.mean(left / (S**2 + t**2))
    assert told[-200:].mean() == pytest.approx(mean, rel=0.1)
    # Control: where the target is no constant the student shrinks to another fixed point.
    state, _ = linear.trained(differentiated, NEIGHBOURS, INIT, 600)
    level = consistency.karras_levels(NUM)
    shrunk = least(level, 1 / (S**2 + level[:-1] ** 2))
    np.testing.assert_allclose(state.params["c"][:-1], shrunk, rtol=0.08)  # which pairs are drawn is noise
    assert (state.params["c"][:3] < 0.85 * found[:3]).all()
    # With the paper's weight of 1 it stays below a third of f* at the top, however fine the grid.
    for num in (100, 1000):
        level = consistency.karras_levels(num)
        assert least(level, np.ones(num - 1))[0] < exact(HIGH) / 3
        assert np.prod(factors("euler", num - 1)) > 0.97 * exact(HIGH)


def least(level, weight):
    """The minimum over c [N - 1] of the sum of weight E(c_t x_t - c_u x_u)^2 over neighbours; c = 1 at the end."""
    t, u = level[:-1], level[1:]
    mixed = weight * (S**2 + t * u)
    matrix = np.diag(weight * (S**2 + t**2) + np.append(0.0, weight[:-1] * (S**2 + u[:-1] ** 2)))
    matrix -= np.diag(mixed[:-1], 1) + np.diag(mixed[:-1], -1)
    return np.linalg.solve(matrix, np.append(np.zeros(len(t) - 1), mixed[-1]))


def differentiated(keys, params, x0, context):
    """`TRAINING`, but the gradient goes through the target too."""
    f = parameterizations.denoiser(partial(APPLY, params), FUNCTION)
    t, u = context.t.t, context.t.u
    x_t, x_u = (x0 + LEVELS.sigma(s)[:, None] * linear.NOISE for s in (t, u))
    return even(context.t) * distances.l2(f(x_t, t).mean, f(x_u, u).mean), {}


def some_pairs(count=4):
    grid = TIMES[: count + 1]
    return pairs.Pair(*(jnp.asarray(each, jnp.float32) for each in pairs.of_times(LEVELS, grid[:-1], grid[1:])))


def test_gradients_reach_the_student_alone():
    """The sign that the target is constant: without that the parameters at u have a gradient too."""
    keys = jax.random.split(jax.random.key(0), 4)

    def total(loss, params, averages, held):
        context = Context(some_pairs(), 0, averages, held)
        return loss(keys, params, linear.X0[:4], context)[0].sum()

    loss = distilled(pairs.heun, consistency.averaged())
    params, averages, held = jax.grad(partial(total, loss), (0, 1, 2))(INIT, {"target": INIT}, HELD)
    assert (np.abs(params["c"][:4]) > 1e-4).all()
    assert (params["c"][4:] == 0).all()
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((averages, held)))
    assert (jax.grad(partial(total, TRAINING))(INIT, {}, {})["c"][4:] == 0).all()
    assert jax.grad(partial(total, differentiated))(INIT, {}, {})["c"][4] != 0  # control
    # Control: with an average in the student's place, and the student as its target, no gradient is left for it.
    params, averages, _ = jax.grad(partial(total, swapped(loss)), (0, 1, 2))(INIT, {"target": INIT}, HELD)
    assert not params["c"].any()
    assert averages["target"]["c"][:4].all()


def swapped(loss):
    def of(keys, params, x0, context):
        return loss(keys, context.averages["target"], x0, context._replace(averages={"target": params}))

    return of


def test_an_average_in_the_students_place_moves_nothing():
    """In the training step, where averages are constant: the control of every fixed point above."""
    loss, average = distilled(pairs.heun, consistency.averaged()), {"target": Average(lambda step: 0.5)}

    def moved(loss):
        state, _ = linear.trained(loss, NEIGHBOURS, INIT, 2, averages=average, held=HELD)
        return np.abs(state.params["c"] - INIT["c"]).max()

    assert moved(loss) > 1e-3
    assert moved(swapped(loss)) == 0


def test_without_the_boundary_nothing_is_learned():
    """Control: f = 0 has no loss, unless the smallest level is returned as it is."""
    zero = {"c": jnp.zeros(NUM)}
    pair = pairs.Pair(
        *(jnp.asarray(each[-1:], jnp.float32) for each in pairs.of_times(LEVELS, TIMES[:-1], TIMES[1:]))
    )

    def value(function):
        loss = consistency.loss(consistency.same_noise, distances.l2)(APPLY, function, linear.process_of(LEVELS))
        return loss(jax.random.split(jax.random.key(0), 1), zero, linear.X0[:1], Context(pair))[0].item()

    assert value(X0) == 0
    assert value(FUNCTION) > 0.1


def test_student_and_target_share_their_dropout():
    """The same point twice has loss 0; with other keys for the target it has not."""

    def apply(params, x, time, dropout_keys, other=0):
        return x * jax.vmap(lambda key: jax.random.bernoulli(key, 0.5, x.shape[1:]))(rng.each(dropout_keys, other))

    keys = jax.random.split(jax.random.key(0), 8)
    twice = pairs.Pair(jnp.full(8, 0.5), jnp.full(8, 0.5), jnp.zeros(8))

    def value(apply):
        loss = consistency.loss(consistency.same_noise, distances.l2)
        return loss(apply, parameterizations.x0(lambda t: t), PROCESS)(keys, {}, jnp.ones((8, 6)), Context(twice))[0]

    assert (value(apply) == 0).all()
    calls = iter(range(2))
    assert (value(lambda *inputs, **keys: apply(*inputs, **keys, other=next(calls))) > 0).any()


# ---- Distances.


def test_distances():
    x, y = jax.random.normal(jax.random.key(0), (2, 5, 4, 4, 3))
    r = np.asarray(x - y, np.float64).reshape(5, -1)
    np.testing.assert_allclose(distances.l2(x, y), (r**2).mean(1), rtol=1e-5)
    np.testing.assert_allclose(distances.l1(x, y), np.abs(r).mean(1), rtol=1e-5)
    c = 0.00054 * np.sqrt(48)
    np.testing.assert_allclose(distances.pseudo_huber()(x, y), np.sqrt((r**2).sum(1) + c**2) - c, rtol=1e-5)
    np.testing.assert_allclose(distances.pseudo_huber(0.0)(x, y), np.linalg.norm(r, axis=1), rtol=1e-5)
    by_entry = (np.sqrt(r**2 + 0.001**2) - 0.001).mean(1)
    np.testing.assert_allclose(distances.huber_of_entries()(x, y), by_entry, rtol=1e-5)
    assert (distances.pseudo_huber()(x, y) / by_entry > 5).all()  # one norm an example is another loss
    seen = distances.held(lambda params, x, y: distances.l2(params * x, params * y), "judge")
    np.testing.assert_allclose(seen(x, y, Context((), held={"judge": 3.0})), 9 * (r**2).mean(1), rtol=1e-5)
    # Near 0 nothing cancels, and at 0 the gradient is 0.
    near = distances.pseudo_huber(0.03)(jnp.full((1, 4), 1e-5), jnp.zeros((1, 4)))
    np.testing.assert_allclose(near, 4e-10 / 0.06, rtol=1e-5)
    for distance in (distances.pseudo_huber(0.0), distances.pseudo_huber(), distances.huber_of_entries()):
        assert not jax.grad(lambda x: distance(x, x[::-1]).sum())(jnp.ones((2, 3))).any()  # noqa: B023
