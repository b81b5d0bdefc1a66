"""Guided distillation of the exact guided denoiser of two classes, N(-M, S^2) and N(M, S^2); latent consistency."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import guidance, losses, parameterizations, processes, schedules
from diffusion_jax.diffusion.few_step import consistency, distances, guided, latent, pairs, stages, teachers
from diffusion_jax.diffusion.gaussian import eps_from_x0, v_from_x0
from diffusion_jax.diffusion.losses import Context

pytestmark = pytest.mark.slow

S, M, NULL = 0.4, 0.7, 2
VP = schedules.vp_linear()
TABLE = schedules.from_betas(schedules.quadratic_betas(1000, 0.00085, 0.012))
INDEX = parameterizations.table_index(1000)


def best(schedule, x, t, label):
    """E[x0 | x_t, label], of both classes together where it is NULL; x [B, D], entries apart."""
    alpha, sigma = schedule.alpha(t)[:, None], schedule.sigma(t)[:, None]
    total = alpha**2 * S**2 + sigma**2
    which = jnp.where(label == NULL, jnp.tanh(alpha * M * x / total), 2.0 * label - 1)
    return which * M + alpha * S**2 / total * (x - alpha * which * M)


def network(schedule, time, head):
    """A teacher `(params, x, time, cond)`, told the label alone; its parameter multiplies the estimate."""

    def apply(params, x, index, cond):
        t = time(index)
        assert set(cond) == {"label"}
        return head(schedule, x, params["gain"] * best(schedule, x, t, cond["label"][:, None]), t)

    return apply


def as_x0(schedule, x, x0, t):
    return x0


def as_eps(schedule, x, x0, t):
    return eps_from_x0(schedule, x, x0, t)


def as_v(schedule, x, x0, t):
    return v_from_x0(schedule, x0, eps_from_x0(schedule, x, x0, t), t)


HEADS = {
    "x0": (as_x0, lambda s, t: parameterizations.x0(t)),
    "eps": (as_eps, parameterizations.eps),
    "v": (as_v, parameterizations.v),
}
SAME = lambda t: jnp.asarray(t)  # noqa: E731
TEACHER = teachers.held(
    network(VP, SAME, as_v), parameterizations.v(VP, SAME), guided.by_told_scale(guidance.replacing(label=NULL))
)
COND = {"label": jnp.array([0, 1] * 8), "guidance_scale": jnp.full(16, jnp.nan)}
KEYS = jax.random.split(jax.random.key(0), 16)
X0 = M * (2.0 * COND["label"][:, None] - 1) + S * jax.random.normal(jax.random.key(1), (16, 3))
CONTEXT = Context(jnp.linspace(0.05, 0.95, 16), held={"teacher": {"gain": jnp.ones(())}})


def student(head, shift=0.0):
    """The exact guided network, told the scale; with a shift it takes it for another."""

    def apply(params, x, t, cond, dropout_keys=None):
        told = best(VP, x, t, cond["label"][:, None])
        scale = cond["guidance_scale"][:, None] + shift
        return head(VP, x, params["gain"] * (scale * told + (1 - scale) * best(VP, x, t, NULL)), t)

    return apply


def value(name, teacher=TEACHER, shift=0.0, params=1.0, context=CONTEXT, low=1.0, high=6.0):
    head, read = HEADS[name]
    factory = guided.distillation(teacher, losses.truncated_snr(VP))
    loss = guided.told(factory(student(head, shift), read(VP, SAME), processes.gaussian(VP)), low, high)
    return loss(KEYS, {"gain": jnp.asarray(params)}, X0, context, COND)[0]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", HEADS)
def test_the_exact_guided_network_has_no_loss_at_any_scale(name):
    x64 = CONTEXT._replace(t=jnp.linspace(0.05, 0.95, 16))
    assert value(name, context=x64).max() < 1e-20
    assert value(name, context=x64, shift=-1.0).min() > 1e-6  # control: w taken for g
    assert value(name, context=x64, params=0.9).min() > 1e-6


def test_estimates_are_mixed_before_they_are_clipped():
    """Control: of a clipped teacher the exact network is not the student."""
    clipped = guidance.clip(-0.6, 0.6)

    def teacher(context, cond):
        return clipped(TEACHER(context, cond))

    assert value("x0", teacher).max() > 1e-2
    assert value("x0").max() < 1e-6


def test_gradients_reach_the_student_alone():
    def total(params, held):
        return value("v", params=params, context=CONTEXT._replace(held=held)).sum()

    student, held = jax.grad(total, (0, 1))(0.9, CONTEXT.held)
    assert student != 0
    assert held["teacher"]["gain"] == 0


def test_scales_are_drawn_in_their_range():
    seen = {}

    def loss(keys, params, x0, context, cond):
        seen["scale"], seen["keys"] = cond["guidance_scale"], keys
        return jnp.zeros(len(x0)), {}

    guided.told(loss, 6.0, 16.0)(KEYS, {}, X0, CONTEXT, COND)
    scale = np.asarray(seen["scale"])
    assert ((scale >= 6) & (scale <= 16)).all()
    assert len(set(scale)) == 16
    assert (jax.random.key_data(seen["keys"]) != jax.random.key_data(KEYS)).any()
    guided.told(loss, 6.0, 6.0)(KEYS, {}, X0, CONTEXT)  # a network that is told nothing else
    np.testing.assert_array_equal(seen["scale"], np.full(16, 6.0))
    with pytest.raises(InputError, match=r"drawn from a range, not from 2.0 to 1.0"):
        guided.told(loss, 2.0, 1.0)


def test_a_student_is_asked_at_one_scale():
    """What it says is what two looks of its teacher's are mixed to."""
    params, x, t = CONTEXT.held["teacher"], X0, CONTEXT.t
    cond = {"label": COND["label"]}
    ask = parameterizations.denoiser(partial(student(as_v), params), parameterizations.v(VP, SAME))
    two = TEACHER(CONTEXT, cond | {"guidance_scale": jnp.full(16, 3.0)})
    np.testing.assert_allclose(guided.at_scale(3.0)(ask, cond)(x, t).mean, two(x, t).mean, atol=1e-4)
    np.testing.assert_array_equal(
        guided.at_scale(3.0)(lambda x_t, t, cond: cond["guidance_scale"])(x, t), np.full(16, 3.0)
    )


# ---- Latent consistency models.


def test_neighbours_of_a_table():
    grid = latent.training_grid()
    np.testing.assert_allclose(1000 * grid - 1, [*range(999, 18, -20), 0], atol=1e-9)
    times = stages.neighbours(TABLE, lambda points: latent.training_grid(), stages.constant(51))
    pair, _ = times.draw(times.init(), jax.random.key(0), jnp.arange(2000), 2000)
    assert set(np.rint(1000 * np.asarray(pair.t)).astype(int)) == set(range(20, 1001, 20))
    np.testing.assert_allclose(1000 * pair.u, np.maximum(1000 * pair.t - 20, 1), rtol=1e-5)
    for steps, indices in {1: [999], 2: [999, 499], 4: [999, 759, 499, 259]}.items():
        np.testing.assert_allclose(1000 * latent.grid(steps)[:-1] - 1, indices)
        assert latent.grid(steps)[-1] == 0
    with pytest.raises(InputError, match=r"must lie in 1, \.\.\., 50, not 51"):
        latent.grid(51)
    with pytest.raises(InputError, match="of a table of 10 entries between 1 and 10 are distilled, not 50"):
        latent.training_grid(10)
    with pytest.raises(InputError, match="leave the noisiest 100 of a table of 1000 out; take a number that divides"):
        latent.training_grid(1000, 300)
    np.testing.assert_allclose(latent.training_grid(4, 4), [1, 0.75, 0.5, 0.25])  # no entry twice


def test_a_student_is_asked_where_what_it_says_tells_x0():
    """The cosine table ends with so little of the data that errors in eps would be 20 000 times as large in x0."""
    cosine = schedules.from_betas(schedules.cosine_betas(1000))
    for schedule, top in ((TABLE, 50), (cosine, 49)):
        assert latent.entries(parameterizations.eps(schedule, INDEX), schedule) == top
        assert latent.entries(parameterizations.v(schedule, INDEX), schedule) == 50
        gains = [parameterizations.gain(parameterizations.eps(schedule, INDEX), schedule, t) for t in (0.3, 0.9)]
        np.testing.assert_allclose(gains, [schedule.sigma(t) / schedule.alpha(t) for t in (0.3, 0.9)], rtol=1e-5)
    assert parameterizations.gain(parameterizations.eps(cosine, INDEX), cosine, 1.0) > 1e4
    np.testing.assert_allclose(1000 * latent.training_grid(top=49)[[0, -2, -1]], [980, 20, 1])
    np.testing.assert_allclose(1000 * latent.grid(2, top=49), [980, 500, 0])
    with pytest.raises(InputError, match=r"must lie in 1, \.\.\., 49, not 50"):
        latent.grid(50, top=49)
    silent = schedules.Schedule(lambda t: 1e-9 + 0 * t, lambda t: 1 + 0 * t)
    with pytest.raises(InputError, match="no x0 within 200 times its errors, at any entry"):
        latent.entries(parameterizations.eps(silent, INDEX), silent)


def test_the_boundary_is_a_switch():
    base = parameterizations.eps(TABLE, INDEX)
    consistent = latent.consistent(base, INDEX)
    x, output = jax.random.normal(jax.random.key(0), (2, 3, 5))
    t = jnp.array([1, 20, 1000]) / 1000
    found = consistent.read(output, x, t).mean
    np.testing.assert_array_equal(found[0], x[0])  # index 0, where noise of 0.029 is still there
    assert TABLE.sigma(1e-3) == pytest.approx(0.0292, abs=1e-4)
    skip, out = latent.skip_and_out(np.array([0.0, 19.0]))
    np.testing.assert_allclose(skip, [1, 6.925e-6], rtol=1e-3)
    np.testing.assert_allclose(out, [0, 1], atol=4e-6)
    np.testing.assert_allclose(found[1:], base.read(output, x, t).mean[1:], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(consistent.scale(x, t)[1], [0, 19, 999])


def test_the_loss_is_that_of_a_step_of_the_guided_teacher():
    """By hand, in float64: DDIM with the eps of the guided estimate, the boundary at both ends, w in [5, 15]."""
    time = lambda index: (index + 1) / 1000  # noqa: E731
    teacher = teachers.held(
        network(TABLE, time, as_eps),
        parameterizations.eps(TABLE, INDEX),
        guided.by_told_scale(guidance.replacing(label=NULL)),
    )
    function = latent.consistent(parameterizations.x0(INDEX), INDEX)
    seen = {}

    def apply(params, x, index, cond, dropout_keys=None):
        seen.setdefault("scale", cond["guidance_scale"])
        return params["gain"] * x / (1 + 0.001 * index[:, None])

    factory = consistency.loss(
        consistency.solved(teacher, pairs.euler(TABLE)), distances.huber_of_entries(), consistency.averaged()
    )
    loss = guided.told(factory(apply, function, processes.gaussian(TABLE)), 6.0, 16.0)
    grid = latent.training_grid()
    chosen = np.array([0, 10, 30, 49])
    pair = pairs.of_times(TABLE, grid[chosen], grid[chosen + 1])
    context = Context(
        pairs.Pair(*(jnp.asarray(each, jnp.float32) for each in pair)),
        averages={"target": {"gain": jnp.float32(0.7)}},
        held=CONTEXT.held,
    )
    cond = {"label": COND["label"][:4]}
    found, _ = loss(KEYS[:4], {"gain": jnp.float32(0.9)}, X0[:4], context, cond)
    noise_keys = jax.vmap(lambda key: jax.random.split(jax.random.split(key, 2)[0], 2)[0])(KEYS[:4])
    noise = np.asarray(jax.vmap(lambda key: jax.random.normal(key, (3,)))(noise_keys), np.float64)
    x0, scale = np.asarray(X0[:4], np.float64), np.asarray(seen["scale"], np.float64)[:, None]
    (a, s), (a_u, s_u) = (
        (schedule[:, None] for schedule in (TABLE.alpha(t), TABLE.sigma(t))) for t in (pair.t, pair.u)
    )
    x_t = a * x0 + s * noise
    total = a**2 * S**2 + s**2

    def mean(which):
        return which * M + a * S**2 / total * (x_t - a * which * M)

    eps = [
        (x_t - a * each) / s
        for each in (mean(2.0 * np.array(cond["label"])[:, None] - 1), mean(np.tanh(a * M * x_t / total)))
    ]
    guided_eps = eps[1] + scale * (eps[0] - eps[1])
    x_u = a_u * (x_t - s * guided_eps) / a + s_u * guided_eps

    def f(gain, x, t):
        index = 1000 * t[:, None] - 1
        skip, out = 0.25 / ((10 * index) ** 2 + 0.25), 10 * index / np.sqrt((10 * index) ** 2 + 0.25)
        return skip * x + out * gain * x / (1 + 0.001 * index)

    gap = f(0.9, x_t, pair.t) - f(0.7, x_u, pair.u)
    np.testing.assert_allclose(found, (np.sqrt(gap**2 + 1e-6) - 1e-3).mean(1), rtol=2e-3)
