"""Deterministic solvers: the probability-flow ODE of Gaussian data is affine and known in closed form."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import processes, samplers, schedules, timesteps
from diffusion_jax.diffusion.samplers import edm
from diffusion_jax.diffusion.samplers.dpm import dpmpp_2m, dpmpp_2m_sde
from diffusion_jax.diffusion.samplers.inversion import invert
from diffusion_jax.diffusion.samplers.langevin import annealed_langevin
from diffusion_jax.diffusion.samplers.ode import euler, heun
from diffusion_jax.diffusion.samplers.sde import euler_maruyama, predictor_corrector
from tests.diffusion.samplers.mixture import quantile_map, two_modes

pytestmark = pytest.mark.slow

MEAN, VAR = 0.3, 0.25
SCHEDULES = {
    "vp": schedules.vp_linear(),
    "cosine": schedules.cosine(),
    "flow": schedules.flow(),
    "edm": schedules.edm(10.0),
}
X = np.array([[1.3, -0.4], [0.2, 2.0]])


def exact(schedule):
    def denoise(x, t):
        alpha, sigma = schedule.alpha(t), schedule.sigma(t)
        return Gaussian(MEAN + alpha * VAR / (alpha**2 * VAR + sigma**2) * (x - alpha * MEAN))

    return denoise


def flow_map(schedule, x, t, s):
    def moments(t):
        return schedule.alpha(t) * MEAN, np.sqrt(schedule.alpha(t) ** 2 * VAR + schedule.sigma(t) ** 2)

    (mean_t, std_t), (mean_s, std_s) = moments(np.array(t)), moments(np.array(s))
    return mean_s + (x - mean_t) * std_s / std_t


def walk(sampler, times, denoise, x, seed=0):
    keys = jax.random.split(jax.random.key(seed), len(x))
    return jax.jit(lambda x: samplers.solve(sampler, times, denoise, x, keys))(jnp.asarray(x))


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize(
    ("make", "order", "end"),
    [(euler, 1, 0.0), (euler, 1, 0.1), (heun, 2, 0.0), (heun, 2, 0.1), (dpmpp_2m, 2, 0.1)],
)
def test_orders_of_convergence(x64, schedule, make, order, end):
    """The order measured between the last two halvings of the step is the method's, within 0.2.

    Down to 0 the steps are equal in v = sigma / alpha: in t, those of VP, where v is near sqrt(t), are too long
    there. DPM-Solver++(2M) is second order in steps of log-SNR, and walks those; they cannot be short at t = 0.
    """
    first = 0.9 if end else 0.5
    truth = flow_map(schedule, X, first, end)
    errors = []
    for steps in (160, 320, 640):
        times = np.linspace(first, end, steps + 1)
        ends = schedules.log_snr(schedule, np.array([first, end]))
        if make is dpmpp_2m:
            times = schedules.inverse_log_snr(schedule, np.linspace(*ends, steps + 1))
        elif end == 0:
            log_snr = ends[0] - 2 * np.log(np.linspace(1, 0, steps + 1)[:-1])
            times = np.append(schedules.inverse_log_snr(schedule, log_snr), 0.0)
        errors.append(float(np.linalg.norm(walk(make(schedule), times, exact(schedule), X) - truth)))
    measured = np.log2(errors[1] / errors[2])
    print(f"order {measured:.2f}, error {errors[-1]:.1e}")
    assert abs(measured - order) < 0.2, errors


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
def test_euler_is_ddim(x64, schedule):
    times = timesteps.linear(7)
    ddim = samplers.ancestral(processes.gaussian(schedule, processes.ddim(0.0)))
    ours, theirs = (walk(sampler, times, exact(schedule), X) for sampler in (euler(schedule), ddim))
    np.testing.assert_allclose(ours, theirs, rtol=1e-12, atol=1e-13)


def test_heun_is_algorithm_1_and_asks_the_network_2n_minus_1_times(x64):
    """Written as in the paper, for levels that are time itself; a nonlinear denoiser."""
    schedule, levels = schedules.edm(1.0), np.array([0.9, 0.5, 0.2, 0.05, 0.0])
    asked = []

    def denoise(x, t):
        jax.debug.callback(lambda: asked.append(1))
        return Gaussian(jnp.tanh(x - t))

    x = X
    for t, s in itertools.pairwise(levels):
        d = (x - np.tanh(x - t)) / t
        euler_point = x + (s - t) * d
        slope = (d + (euler_point - np.tanh(euler_point - s)) / s) / 2 if s > 0 else d
        x = x + (s - t) * slope
    ours = walk(heun(schedule), levels, denoise, X)
    jax.effects_barrier()
    np.testing.assert_allclose(ours, x, rtol=1e-12)
    assert len(asked) == 2 * 4 - 1


SAMPLERS = {
    "euler": euler,
    "heun": heun,
    "edm": lambda schedule: edm(schedule, s_churn=5.0, s_noise=1.003),
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
    "euler_maruyama": euler_maruyama,
    "predictor_corrector": lambda schedule: predictor_corrector(schedule, euler_maruyama(schedule)),
    "annealed_langevin": lambda schedule: annealed_langevin(schedule, 3, 1e-4, denoised=True),
}


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("make", SAMPLERS.values(), ids=SAMPLERS)
def test_chains_to_0_are_finite_in_float32(schedule, make):
    """Where infinite noise has no meaning to a method, it refuses the grid that starts there."""

    def denoise(x, t):
        return Gaussian(jnp.clip(exact(schedule)(x, t).mean, -3, 3))

    for first in (0.97, 1.0):
        times = timesteps.linear(6, first)
        infinite = schedule.alpha(np.array(first)) == 0
        if infinite and make in [SAMPLERS[name] for name in ("heun", "edm", "annealed_langevin")]:
            with pytest.raises(InputError, match="infinite"):
                walk(make(schedule), times, denoise, X.astype(np.float32))
        else:
            out = walk(make(schedule), times, denoise, X.astype(np.float32))
            assert out.dtype == jnp.float32
            assert np.isfinite(out).all()


def test_inversion_returns_to_the_noise(x64):
    schedule = schedules.vp_linear(0.1, 5.0)
    times = np.linspace(0.8, 0.0, 41)
    down = walk(euler(schedule), times, exact(schedule), X)
    back = invert(schedule, times, exact(schedule), down, iterations=60)
    np.testing.assert_allclose(back, X, rtol=1e-9)
    # One iteration is first order.
    errors = []
    for steps in (80, 160):
        times = np.linspace(0.8, 0.0, steps + 1)
        noise = invert(schedule, times, exact(schedule), flow_map(schedule, X, 0.8, 0.0))
        errors.append(np.abs(noise - X).max())
    assert abs(np.log2(errors[0] / errors[1]) - 1) < 0.2


@pytest.mark.parametrize(("make", "order"), [(euler, 1), (heun, 2), (dpmpp_2m, 2)])
def test_orders_of_convergence_on_two_modes(x64, make, order):
    """From the prior to near the data, across the time at which a point decides for a mode."""
    schedule, first, last = SCHEDULES["vp"], 0.95, 0.05
    x = np.linspace(-1.5, 1.5, 7)[:, None]  # modes part near 0.84, the 80 % quantile
    truth = quantile_map(schedule, x, first, last)
    assert truth.min() < -0.8
    assert truth.max() > 1.2
    ends = schedules.log_snr(schedule, np.array([first, last]))
    errors = []
    for steps in (80, 160, 320):
        times = schedules.inverse_log_snr(schedule, np.linspace(*ends, steps + 1))
        errors.append(np.abs(walk(make(schedule), times, two_modes(schedule), x) - truth).max())
    assert abs(np.log2(errors[1] / errors[2]) - order) < 0.25, errors
    assert errors[2] < 0.05
