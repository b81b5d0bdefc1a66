"""Progressive distillation on N(0, S^2): the student's one step is the teacher's two, in closed form and trained."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import losses, parameterizations, samplers, schedules, timesteps
from diffusion_jax.diffusion.few_step import progressive, teachers
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.diffusion.parameterizations import denoiser
from tests.diffusion.few_step import linear
from tests.diffusion.few_step.linear import S

COSINE = schedules.bounded_cosine()
SCHEDULES = {"VP": COSINE, "VE": schedules.ve(), "flow": schedules.flow(), "cosine": schedules.cosine()}


def best(schedule, t):
    """c with E[x0 | x_t] = c x_t."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    return alpha * S**2 / (alpha**2 * S**2 + sigma**2)


def factor(schedule, c, t, u):
    """x_u / x_t of a DDIM step with x0 = c x_t."""
    keep = schedule.sigma(u) / schedule.sigma(t)
    return keep + (schedule.alpha(u) - keep * schedule.alpha(t)) * c


def landing(schedule, t, end, reached):
    """c whose DDIM step from t to the end has the factor `reached`: the paper's quotient."""
    keep = schedule.sigma(end) / schedule.sigma(t)
    return (reached - keep) / (schedule.alpha(end) - keep * schedule.alpha(t))


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SCHEDULES)
def test_one_step_to_the_target_is_two_of_the_teachers(name):
    schedule = SCHEDULES[name]
    step = progressive.halvings(schedule, progressive.grid(8))
    t, middle, end = map(jnp.asarray, step[:3])
    x_t = jnp.ones((4, 1))

    def denoise(x, t):
        return Gaussian(best(schedule, t)[:, None] * x)

    found = progressive.target(schedule, denoise, x_t, progressive.Halving(t, middle, end, jnp.asarray(step.share)))
    first = best(schedule, step.t)
    second = factor(schedule, first, step.t, step.middle) * best(schedule, step.middle)
    reached = factor(schedule, first, step.t, step.middle) * factor(
        schedule, best(schedule, step.middle), step.middle, step.end
    )
    wanted = landing(schedule, step.t, step.end, reached)
    np.testing.assert_allclose(found[:, 0], wanted, rtol=1e-9)
    np.testing.assert_allclose(found[-1, 0], second[-1], rtol=1e-14)  # the step to 0: the second estimate, no 0 / 0
    # Controls: either estimate alone, and the middle and the end exchanged.
    swapped = step.share * first + (1 - step.share) * factor(schedule, first, step.t, step.end) * best(
        schedule, np.maximum(step.end, 1e-9)
    )
    for wrong in (first, second, swapped):
        assert np.abs(wrong / wanted - 1)[:3].max() > 1e-2


def test_after_ten_halvings_one_step_is_the_first_teachers_chain():
    times = progressive.grid(1024)
    c = best(COSINE, times[:-1])
    chain = np.prod(factor(COSINE, c, times[:-1], times[1:]))
    while len(c) > 1:
        step = progressive.halvings(COSINE, times)
        first, second = c[::2], c[1::2]
        c = step.share * first + (1 - step.share) * factor(COSINE, first, step.t, step.middle) * second
        times = times[::2]
    assert c[0] == pytest.approx(chain, rel=1e-12)
    # Control: the ODE itself ends elsewhere.
    assert abs(c[0] / (S / np.hypot(COSINE.alpha(1.0) * S, COSINE.sigma(1.0))) - 1) > 1e-4


def test_single_precision_keeps_the_target_where_the_quotient_loses_it():
    step = progressive.halvings(COSINE, progressive.grid(2048))
    exact = best(COSINE, step.t), best(COSINE, step.middle)
    reached = factor(COSINE, exact[0], step.t, step.middle)
    wanted = step.share * exact[0] + (1 - step.share) * reached * exact[1]
    single = progressive.Halving(*(jnp.asarray(each, jnp.float32) for each in step))

    def denoise(x, t):
        return Gaussian(jnp.asarray(exact[0] if t is single.t else exact[1], jnp.float32)[:, None] * x)

    found = progressive.target(COSINE, denoise, jnp.ones((1024, 1)), single)[:, 0]
    assert np.abs(found - wanted).max() < 1e-6
    both = reached * factor(COSINE, exact[1], step.middle, step.end)
    keep = np.float32(COSINE.sigma(step.end)) / np.float32(COSINE.sigma(step.t))
    alphas = np.float32(COSINE.alpha(step.end)), np.float32(COSINE.alpha(step.t))
    quotient = (np.float32(both) - keep) / (alphas[0] - keep * alphas[1])
    assert np.abs(quotient - wanted).max() > 1e-5


TEACHER = linear.optimal(COSINE)
STUDENT = linear.student(progressive.grid(4)[:-1])


def loss_of(apply, parameterization, teacher=TEACHER):
    held, weight = teachers.held(*teacher[:2]), losses.truncated_snr(COSINE)
    factory = progressive.distillation(COSINE, progressive.grid(8), held, weight)
    return factory(apply, parameterization, linear.process_of(COSINE))


@pytest.fixture(scope="module")
def student():
    times = progressive.steps(COSINE, progressive.grid(8))
    return linear.trained(loss_of(*STUDENT[:2]), times, STUDENT[2], 300, held={"teacher": TEACHER[2]})


def test_a_trained_student_takes_its_teachers_steps(student):
    state, told = student
    step = progressive.halvings(COSINE, progressive.grid(8))
    reached = factor(COSINE, best(COSINE, step.t), step.t, step.middle)
    both = reached * factor(COSINE, best(COSINE, step.middle), step.middle, step.end)
    np.testing.assert_allclose(state.params["c"], landing(COSINE, step.t, step.end, both), rtol=2e-5)
    assert told[-1] < 1e-8 < told[0]


def test_a_student_is_right_on_its_own_grid_alone(student):
    """Its network at 4 times, answering at the nearest: half or twice the steps end elsewhere."""
    apply, parameterization, _ = STUDENT
    x, keys = jnp.ones((1, 1)), jax.random.split(jax.random.key(0), 1)
    teacher = denoiser(partial(TEACHER[0], TEACHER[2]), TEACHER[1])
    denoise = denoiser(partial(apply, student[0].params), parameterization)
    wanted = samplers.solve(samplers.euler(COSINE), progressive.grid(8), teacher, x, keys).item()

    def walked(steps):
        return samplers.solve(samplers.euler(COSINE), progressive.grid(steps), denoise, x, keys).item()

    assert walked(4) == pytest.approx(wanted, rel=1e-4)
    assert abs(walked(8) / wanted - 1) > 0.05
    assert abs(walked(2) / wanted - 1) > 0.05
    assert progressive.check_steps(None, (4,)) == progressive.check_steps(4, (4, 8)) == 4
    with pytest.raises(InputError, match="distilled for 4, 8 steps, and wrong in 2; take one it knows"):
        progressive.check_steps(2, (8, 4))


def test_gradients_reach_the_student_alone():
    apply, parameterization, init = STUDENT
    loss = loss_of(apply, parameterization)
    keys = jax.random.split(jax.random.key(0), 4)
    step = progressive.Halving(
        *(jnp.asarray(each, jnp.float32) for each in progressive.halvings(COSINE, progressive.grid(8)))
    )

    def total(params, held):
        return loss(keys, params, linear.X0[:4], Context(step, held=held))[0].sum()

    params, held = jax.grad(total, (0, 1))(init, {"teacher": TEACHER[2]})
    assert (np.abs(params["c"]) > 1e-3).all()
    assert held["teacher"]["s"] == 0


# ---- Weights, the schedule, what may be distilled.


@pytest.mark.usefixtures("x64")
def test_weights_turn_an_error_in_x0_into_others():
    rng = np.random.default_rng(0)
    x0, wrong, noise = rng.normal(size=(3, 5))
    for schedule in (COSINE, schedules.flow()):
        t = np.linspace(0.1, 0.9, 5)
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        x_t = alpha * x0 + sigma * noise
        eps = (x_t - alpha * wrong) / sigma
        square = (wrong - x0) ** 2
        np.testing.assert_allclose(losses.truncated_snr(schedule)(t) * square, np.maximum(square, (eps - noise) ** 2))
        gap = (alpha * eps - sigma * wrong) - (alpha * noise - sigma * x0)
        np.testing.assert_allclose(losses.of_v(schedule)(t) * square, gap**2)


def test_the_bounded_cosine_keeps_to_its_bounds():
    ends = np.array([1e-12, 0.5, 1.0])
    np.testing.assert_allclose(schedules.log_snr(COSINE, ends), [20, 0, -20], atol=1e-6)
    np.testing.assert_allclose(COSINE.alpha(ends) ** 2 + COSINE.sigma(ends) ** 2, 1)
    assert (COSINE.alpha(0.0), COSINE.sigma(0.0)) == (1, 0)
    told = parameterizations.angle(COSINE)(jnp.asarray(np.array([0.5, 1.0])))
    np.testing.assert_allclose(told, [500, 1000 * (1 - 2 / np.pi * np.exp(-10))], rtol=1e-6)
    np.testing.assert_allclose(
        jax.jit(COSINE.sigma)(jnp.array([0.0, 1e-3])), COSINE.sigma(np.array([0, 1e-3])), rtol=1e-5
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", SCHEDULES)
def test_x0_and_eps_together_say_x0(name):
    schedule = SCHEDULES[name]
    both = parameterizations.x0_and_eps(schedule, lambda t: t)
    x0, noise, off = jax.random.normal(jax.random.key(0), (3, 4, 2, 3))
    t = jnp.array([0.01, 0.3, 0.9, 1.0])
    alpha, sigma = schedule.alpha(t)[:, None, None], schedule.sigma(t)[:, None, None]
    x_t = alpha * x0 + sigma * noise
    output = both.target(x0, noise, t)
    assert output.shape == (4, 2, 6)
    np.testing.assert_allclose(both.read(output, x_t, t).mean, x0, atol=1e-12)
    # An error in one half counts by how little the other is sure: of eps nothing is divided by alpha.
    moved = both.read(output + jnp.concatenate([0 * off, off], -1), x_t, t).mean - x0
    np.testing.assert_allclose(moved, -alpha * sigma / (alpha**2 + sigma**2) * off, atol=1e-12)


def test_networks_that_say_eps_cannot_be_distilled():
    times = progressive.grid(8)
    time = parameterizations.angle(COSINE)
    for fit in (parameterizations.v, parameterizations.x0_and_eps):
        progressive.check(fit(COSINE, time), COSINE, times)
    progressive.check(parameterizations.x0(time), COSINE, times)
    progressive.check(parameterizations.velocity(schedules.flow(), time), schedules.flow(), times)
    with pytest.raises(
        InputError, match=r"the teacher cannot be distilled: .* 2.2e\+04 times as large in x0 at t = 1"
    ):
        progressive.check(parameterizations.eps(COSINE, time), COSINE, times, "teacher")
    with pytest.raises(InputError, match="is infinite in x0 at t = 1"):
        progressive.check(parameterizations.eps(schedules.cosine(), time), schedules.cosine(), times)
    with pytest.raises(InputError, match="the student cannot be distilled"):
        loss_of(TEACHER[0], parameterizations.eps(COSINE, time))


def test_grids_that_cannot_be_halved_are_refused():
    with pytest.raises(InputError, match="a teacher of 7 steps cannot be halved"):
        progressive.halvings(COSINE, progressive.grid(7))
    table = schedules.from_betas(schedules.linear_betas(1000))
    assert len(progressive.halvings(table, timesteps.uniform(8, 1000)).t) == 4
    with pytest.raises(InputError, match="is not on the schedule's table"):
        progressive.halvings(table, progressive.grid(16))
