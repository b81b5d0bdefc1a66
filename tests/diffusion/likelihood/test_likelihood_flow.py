"""The density of the flow, against laws whose density and denoiser are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import likelihood, parameterizations, schedules, timesteps
from diffusion_jax.diffusion.likelihood import HEUN, RK4, exact_trace, flow_times, hutchinson, ode_likelihood
from tests.diffusion.samplers.mixture import CENTRES, WEIGHTS, WIDTH, two_modes

pytestmark = pytest.mark.slow

SCHEDULES = {
    "vp": schedules.vp_linear(),
    "cosine": schedules.cosine(),
    "flow": schedules.flow(),
    "edm": schedules.edm(),
    "ve": schedules.ve(),
    "table": schedules.from_betas(schedules.linear_betas(1000)),
}
MEAN, VAR, LEVEL = 0.3, 0.25, 1e-3
X = np.array([[1.3, -0.4], [0.2, 2.0]])


def gaussian_data(schedule):
    def denoise(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return Gaussian(MEAN + alpha * VAR / (alpha**2 * VAR + sigma**2) * (x - alpha * MEAN))

    return denoise


def pushed_forward(schedule, times):
    """log density and latent of X: the flow of Gaussian data is affine, from N(0, alpha_1^2 + sigma_1^2)."""
    alpha, sigma = schedule.alpha(times[0]), schedule.sigma(times[0])
    blurred = np.sqrt(VAR + (schedule.sigma(times[-1]) / schedule.alpha(times[-1])) ** 2)
    slope = np.sqrt(alpha**2 * VAR + sigma**2) / blurred
    latent = alpha * MEAN + slope * (X - MEAN)
    prior = alpha**2 + sigma**2
    return (np.log(slope) - 0.5 * np.log(2 * np.pi * prior) - latent**2 / (2 * prior)).sum(1), latent


def measured(schedule, times, solver, denoise=gaussian_data, x=X, trace=None):
    keys = jax.random.split(jax.random.key(0), len(x))
    trace = exact_trace() if trace is None else trace
    density = jax.jit(lambda x: ode_likelihood(denoise(schedule), schedule, times, x, keys, trace, solver))
    return density(jnp.asarray(x))


@pytest.mark.parametrize(("name", "solver", "order"), [
    *((name, RK4, 4) for name in ("vp", "cosine", "flow", "edm", "ve")), ("cosine", HEUN, 2), ("table", HEUN, 2)
])  # fmt: skip
def test_orders_of_convergence_to_the_closed_form(x64, name, solver, order):
    """Both of the density and of the latent, within 0.3; RK4 in 128 steps is right to 1e-6."""
    schedule, errors = SCHEDULES[name], []
    for steps in (64, 128) if name != "table" else (500, 1000):
        times = timesteps.uniform(steps, 1000)[:-1] if name == "table" else flow_times(schedule, steps, LEVEL)
        density = measured(schedule, times, solver)
        log_prob, latent = pushed_forward(schedule, times)
        errors.append((np.abs(density.log_prob - log_prob).max(), np.abs(density.latent - latent).max()))
    assert errors[-1][0] < (1e-6 if solver is RK4 else 0.02)
    if name != "table":  # its own times are even in t, and where they end depends on how many are taken
        assert (np.abs(np.log2(errors[0]) - np.log2(errors[1]) - order) < 0.3).all(), errors


def test_without_any_signal_left_it_is_the_density_of_the_data(x64):
    """alpha(1) = 0: no prior is wrong. The data is blurred by the last level, which is O(level^2)."""
    truth = (-0.5 * np.log(2 * np.pi * VAR) - (X - MEAN) ** 2 / (2 * VAR)).sum(1)
    gaps = [
        np.abs(measured(SCHEDULES["cosine"], flow_times(SCHEDULES["cosine"], 400, level), RK4).log_prob - truth).max()
        for level in (0.02, 0.01)
    ]
    assert abs(gaps[0] / gaps[1] - 4) < 0.1
    assert gaps[1] < 0.005


def test_two_modes_in_one_dimension(x64):
    schedule = SCHEDULES["cosine"]
    x = np.linspace(-2.5, 3, 23)[:, None]
    times = flow_times(schedule, 384, LEVEL)
    density = measured(schedule, times, RK4, two_modes, x)
    width = np.hypot(WIDTH, LEVEL)
    law = WEIGHTS * np.exp(-0.5 * ((x - CENTRES) / width) ** 2) / (width * np.sqrt(2 * np.pi))
    np.testing.assert_allclose(density.log_prob, np.log(law.sum(-1)), atol=2e-6)
    assert (np.diff(density.latent[:, 0]) > 0).all()


# ---- Two modes in the plane, with correlations: the Jacobian is not diagonal.

PARTS = np.array([0.3, 0.7])
MEANS = np.array([[-0.8, 0.5], [0.6, -0.2]])
COVARIANCES = np.array([[[0.2, 0.15], [0.15, 0.3]], [[0.4, -0.2], [-0.2, 0.15]]])


def log_parts(x, means, covariances):
    """log N(x; m_k, C_k), [..., 2], and C_k^-1 (x - m_k), [..., 2, 2]."""
    gap = x[..., None, :] - means
    (a, b), (_, c) = (covariances[:, 0].T, covariances[:, 1].T)
    determinant = a * c - b**2
    solved = jnp.stack([c * gap[..., 0] - b * gap[..., 1], a * gap[..., 1] - b * gap[..., 0]], -1)
    solved = solved / determinant[:, None]
    return -0.5 * jnp.sum(gap * solved, -1) - 0.5 * jnp.log(determinant) - np.log(2 * np.pi), solved


def plane(schedule, log_weights=None):
    def denoise(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        logs, solved = log_parts(x, alpha * MEANS, alpha**2 * COVARIANCES + sigma**2 * jnp.eye(2))
        share = jax.nn.softmax(logs + (np.log(PARTS) if log_weights is None else log_weights))
        each = MEANS + alpha * jnp.einsum("kij,...kj->...ki", COVARIANCES, solved)
        return Gaussian(jnp.sum(share[..., None] * each, axis=-2))

    return denoise


PLANE = np.random.default_rng(0).normal(size=(16, 2))


def test_two_modes_in_the_plane(x64):
    schedule = SCHEDULES["flow"]
    density = measured(schedule, flow_times(schedule, 384, LEVEL), RK4, plane, PLANE)
    logs, _ = log_parts(jnp.asarray(PLANE), MEANS, COVARIANCES + LEVEL**2 * np.eye(2))
    want = jax.nn.logsumexp(logs + np.log(PARTS), axis=-1)
    np.testing.assert_allclose(density.log_prob, want, atol=2e-6)


def test_a_conditional_density_is_that_of_its_class(x64):
    """Told which of the two modes: through a parameterisation, a network and its condition."""
    schedule = SCHEDULES["cosine"]

    def apply(params, x, t, cond):
        x0 = plane(schedule, jnp.log(params * jax.nn.one_hot(cond["label"], 2)))(x, t[0]).mean
        return (schedule.alpha(t[0]) * x - x0) / schedule.sigma(t[0])  # v, which is finite at t = 1

    v = parameterizations.v(schedule, lambda t: t)
    times = flow_times(schedule, 256, LEVEL)
    density_fn = jax.jit(likelihood.make_density_fn(apply, v, schedule, times, trace=exact_trace()))
    keys = jax.random.split(jax.random.key(0), len(PLANE))
    label = np.arange(len(PLANE)) % 2
    density = density_fn(1.0, keys, jnp.asarray(PLANE), {"label": jnp.asarray(label)})
    logs, _ = log_parts(jnp.asarray(PLANE), MEANS, COVARIANCES + LEVEL**2 * np.eye(2))
    np.testing.assert_allclose(density.log_prob, logs[np.arange(len(PLANE)), label], atol=1e-5)


# ---- Hutchinson's estimate.


def test_hutchinsons_estimate_is_unbiased():
    """One point, two probes, 4096 keys, seed 0: within 4.5 standard errors of the truth, a false alarm in 150,000."""
    schedule = SCHEDULES["cosine"]
    times, x = flow_times(schedule, 12, 0.05), jnp.broadcast_to(PLANE[:1], (4096, 2)).astype(jnp.float32)
    keys = jax.random.split(jax.random.key(0), len(x))

    @jax.jit
    def log_prob(scale):
        def drawn(key, shape, dtype):
            return scale * likelihood.flow.rademacher(key, shape, dtype)

        return ode_likelihood(plane(schedule), schedule, times, x, keys, hutchinson(2, drawn)).log_prob

    def deviation(scale):
        values = log_prob(scale)
        return float((values.mean() - truth) / (values.std() / 64)), float(values.std())

    truth = measured(schedule, times, RK4, plane, x[:1]).log_prob[0]
    error, spread = deviation(1.0)
    assert abs(error) < 4.5
    assert spread > 0.01  # a diagonal Jacobian would have none under signs
    assert abs(deviation(1.1)[0]) > 9  # control: directions of variance 1.21


def test_directions_are_all_different():
    x = jnp.zeros((3, 40))
    drawn, share, _ = hutchinson(5)(jax.random.split(jax.random.key(0), 3), x)
    assert drawn.shape == (5, 3, 40)
    assert share == 1 / 5
    assert len(np.unique(np.asarray(drawn).reshape(15, 40), axis=0)) == 15
    assert set(np.unique(drawn)) == {-1, 1}
    drawn, *_ = hutchinson(2, jax.random.normal)(jax.random.split(jax.random.key(0), 3), x)
    assert len(np.unique(drawn)) == 240


def test_every_evaluation_has_directions_of_its_own(x64):
    """With D = x, directions of length u^(1/2) count u; that of stage i in step n has fold_in(fold_in(key, n), i)."""
    schedule, key = SCHEDULES["cosine"], jax.random.key(0)
    times = flow_times(schedule, 3, 0.1)

    def trace(keys, x):
        return jnp.sqrt(jax.vmap(jax.random.uniform)(keys))[None, :, None], 1.0

    got = ode_likelihood(lambda x, t: Gaussian(x), schedule, times, jnp.ones((1, 1)), key[None], trace).log_prob
    none = ode_likelihood(lambda x, t: Gaussian(x), schedule, times, jnp.ones((1, 1)), key[None], lambda keys, x: (
        jnp.zeros((1, 1, 1)), 1.0)).log_prob  # fmt: skip
    u = [[jax.random.uniform(jax.random.fold_in(jax.random.fold_in(key, n), i)) for i in range(4)] for n in range(3)]
    lengths = -np.diff(likelihood.flow.clock(schedule, times[::-1]))
    np.testing.assert_allclose(none - got, np.sum(lengths * (np.array(u) @ np.array(RK4.weights))), rtol=1e-9)


# ---- As a program.


def test_a_density_does_not_depend_on_the_batch_or_on_devices():
    """Eight examples on one device, and two on each of four."""
    schedule = SCHEDULES["vp"]
    times = flow_times(schedule, 6, 0.02)

    def density(keys, x):
        return ode_likelihood(plane(schedule), schedule, times, x, keys)

    keys, x = jax.random.split(jax.random.key(0), 8), jnp.asarray(PLANE[:8], jnp.float32)
    whole = jax.jit(density)(keys, x)
    spread = jax.pmap(density)(keys.reshape(4, 2), x.reshape(4, 2, 2))
    assert whole.log_prob.shape == (8,)
    assert whole.log_prob.dtype == whole.latent.dtype == jnp.float32
    for together, parts in zip(whole, spread, strict=True):
        np.testing.assert_allclose(parts.reshape(together.shape), together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("solver", [HEUN, RK4], ids=["heun", "rk4"])
def test_the_program_does_not_grow_with_the_steps(solver):
    """One call of the denoiser stands in it, whatever the steps and the stages."""
    schedule, calls, sizes = SCHEDULES["cosine"], [], []

    def denoise(x, t):
        calls.append(1)
        return Gaussian(jnp.tanh(x) * t)

    keys = jax.random.split(jax.random.key(0), 2)
    for steps in (5, 500):
        times = flow_times(schedule, steps)
        program = jax.make_jaxpr(
            lambda x, t=times: ode_likelihood(denoise, schedule, t, x, keys, solver=solver),
        )(jnp.zeros((2, 3)))
        sizes.append(len(str(program)))
    assert len(calls) == 2
    assert abs(sizes[1] - sizes[0]) < 0.05 * sizes[0]


def test_its_grid_is_even_in_log_snr_and_in_its_clock_near_noise_alone():
    for name in ("vp", "cosine", "edm"):
        schedule = SCHEDULES[name]
        times = flow_times(schedule, 50, LEVEL)
        assert times[0] == 1
        assert len(times) == 51
        ratio = schedule.alpha(times) / schedule.sigma(times)
        np.testing.assert_allclose(ratio[-1], 1 / LEVEL, rtol=1e-9)
        soft = {"vp": ratio[0], "cosine": 0.01, "edm": 0.01}[name]
        steps = np.diff(np.arcsinh(ratio / soft))
        np.testing.assert_allclose(steps, steps.mean(), rtol=1e-6)
        np.testing.assert_allclose(np.diff(np.log(ratio[20:])), steps.mean(), rtol=0.01)
    assert flow_times(SCHEDULES["cosine"], 5, first=0.9)[0] == 0.9


def test_float32_data_keeps_its_type_under_x64(x64):
    schedule, x = SCHEDULES["cosine"], jnp.asarray(X, jnp.float32)
    keys = jax.random.split(jax.random.key(0), len(x))
    density = ode_likelihood(gaussian_data(schedule), schedule, flow_times(schedule, 32), x, keys, exact_trace())
    assert {part.dtype for part in density} == {jnp.dtype(jnp.float32)}
    want, _ = pushed_forward(schedule, flow_times(schedule, 32))
    np.testing.assert_allclose(density.log_prob, want, atol=2e-3)


def test_a_wrong_network_of_eps_is_solved_and_the_error_is_said(x64):
    """1 % wrong: the default 50 steps find what 400 do to 1e-4 nats, and say so within a factor of 30.

    Control: even in the clock, whose steps are too long for it near the noise, 0.02 nats are lost, and said.
    """
    schedule = SCHEDULES["vp"]

    def denoise(schedule):
        right = gaussian_data(schedule)

        def wrong(x, t):
            return Gaussian(right(x, t).mean - 0.01 * schedule.sigma(t) / schedule.alpha(t) * jnp.sin(2 * x))

        return wrong

    def found(times):
        density = measured(schedule, times, RK4, denoise)
        return np.abs(density.log_prob - truth), density.error

    truth = measured(schedule, flow_times(schedule, 400), RK4, denoise).log_prob
    wrong, said = found(flow_times(schedule, 50))
    assert wrong.max() < 1e-4
    assert wrong.max() / 3 < said.max() < 30 * wrong.max()
    even = np.linspace(*likelihood.flow.clock(schedule, np.array([1.0, flow_times(schedule, 50)[-1]])), 51)
    wrong, said = found(np.append(1.0, likelihood.grids.times_at(schedule, even[1:])))
    assert wrong.max() > 0.02
    assert said.max() > wrong.max() / 3


def test_a_tables_grid_ends_at_its_first_entry_whatever_the_steps():
    table = SCHEDULES["table"]
    for steps in (1, 7, 200, 999):
        times = likelihood.table_times(table, 1000, steps)
        assert (times[0], times[-1]) == (1.0, 0.001)
        assert len(times) <= steps + 1
    log_ratio = np.log(table.alpha(times := likelihood.table_times(table, 1000, 50)) / table.sigma(times))
    # Even steps are of 0.2, and the table's first two entries are log 2 / 2 apart; even in t the last step is 1.4.
    assert np.diff(log_ratio)[10:].max() < 0.4
    with pytest.raises(InputError, match="999 steps, not 1000"):
        likelihood.table_times(table, 1000, 1000)
    # Last entries that are far apart, and one without any signal, are left out.
    clipped, silent = schedules.cosine_betas(1000), schedules.zero_terminal_snr(schedules.linear_betas(1000))
    for betas in (clipped, silent):
        schedule = schedules.from_betas(betas)
        times = likelihood.table_times(schedule, 1000, 999)
        assert 0.997 <= times[0] < 1
        ratio = schedule.alpha(times[:2]) / schedule.sigma(times[:2])
        assert 0 < ratio[1] < 1.6 * ratio[0] < 0.01


def test_bad_input_is_named():
    schedule, x = SCHEDULES["cosine"], jnp.zeros((2, 3))
    keys = jax.random.split(jax.random.key(0), 2)
    denoise = gaussian_data(schedule)
    with pytest.raises(InputError, match="no slope at t = 0"):
        ode_likelihood(denoise, schedule, timesteps.linear(5), x, keys)
    with pytest.raises(InputError, match="exact trace of 300 entries"):
        ode_likelihood(denoise, schedule, flow_times(schedule, 2), jnp.zeros((2, 10, 30)), keys, exact_trace())
    with pytest.raises(InputError, match="uint8"):
        ode_likelihood(denoise, schedule, flow_times(schedule, 2), x.astype(jnp.uint8), keys)
    with pytest.raises(InputError, match="one key an example"):
        ode_likelihood(denoise, schedule, flow_times(schedule, 2), x, keys[:1])
    with pytest.raises(InputError, match="HEUN"):
        ode_likelihood(denoise, SCHEDULES["table"], timesteps.uniform(9, 1000)[:-1], x, keys)
    with pytest.raises(InputError, match="at least 1 probe"):
        hutchinson(0)
    with pytest.raises(InputError, match="below the level"):
        flow_times(schedule, 5, level=0.5, first=0.2)
    with pytest.raises(InputError, match="steps >= 1"):
        flow_times(schedule, 0)
