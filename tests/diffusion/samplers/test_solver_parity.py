"""Our solvers against diffusers' schedulers, step for step, on the same network outputs and the same noise.

diffusers' solvers count in levels v = sigma / alpha, and their tables, and some of their sums, are float32. Ours
are put in the place of their levels, and what is left is float32's rounding: 1e-5 is allowed over whole
trajectories (5e-7 was seen), and controls must be 1e-2 away.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.diffusion import parameterizations, samplers, schedules, timesteps
from diffusion_jax.diffusion.samplers.dpm import dpmpp_2m, dpmpp_2m_sde
from diffusion_jax.diffusion.samplers.ode import euler, heun

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

T = 1000
SCHEDULE = schedules.from_betas(schedules.linear_betas(T))
EDM = schedules.edm()
SHAPE = (3, 2, 4)
KEYS = rng.per_example(jax.random.key(0), jnp.arange(3))
TOLERANCE, CONTROL = 1e-5, 1e-2


def network(xp, x, time):
    """A fixed network, neither linear nor entrywise, for `jax.numpy` and torch alike."""
    return xp.tanh(1.1 * x - 0.4 * xp.roll(x, 1, -1) + 0.3 * (time - 0.5))


def start(scale):
    return scale * np.random.default_rng(0).normal(size=SHAPE)


def ours(make, times, schedule=SCHEDULE, parameterization=parameterizations.eps):
    """The pictures before, between and after the steps: [N + 1, *SHAPE]."""
    denoise = parameterizations.denoiser(
        lambda x, time: network(jnp, x, time[0]), parameterization(schedule, lambda t: jnp.asarray(t))
    )
    x = jnp.asarray(start(np.hypot(schedule.alpha(times[0]), schedule.sigma(times[0]))))
    run = functools.partial(samplers.film, frames=len(times))
    return np.asarray(jax.jit(lambda x: run(make(schedule), times, denoise, x, KEYS))(x)[1])


def levels(times, schedule=SCHEDULE):
    return torch.from_numpy(schedule.sigma(times) / schedule.alpha(times))


def distance(a, b):
    axes = tuple(range(1, a.ndim))
    worst = (np.abs(a - b).max(axes) / np.abs(b).max(axes)).max()
    print(f"distance {worst:.1e}")
    return worst


def noises(steps):
    draw = jax.vmap(lambda key: jax.random.normal(key, SHAPE[1:]))
    return [torch.from_numpy(np.array(draw(rng.each(KEYS, n)))) for n in range(1, steps + 1)]


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize("name", ["EulerDiscreteScheduler", "HeunDiscreteScheduler"])
def test_euler_and_heun(x64, name, steps):
    times = timesteps.uniform(steps, T)
    scheduler = getattr(diffusers, name)(T, beta_start=1e-4, beta_end=0.02, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    v, heuns = levels(times), name.startswith("Heun")
    scheduler.sigmas = torch.cat([v[:1], v[1:-1].repeat_interleave(2), v[-1:]]) if heuns else v
    at = np.repeat(times[:-1], 2)[1:] if heuns else times[:-1]
    alpha, x_alpha = SCHEDULE.alpha(at), SCHEDULE.alpha(times)
    pictures = ours(heun if heuns else euler, times)
    x = torch.from_numpy(np.array(pictures[0] / x_alpha[0]))
    theirs = [x]
    for n, (t, ours_t) in enumerate(zip(scheduler.timesteps, at, strict=True)):
        scheduler.scale_model_input(x, t)
        x = scheduler.step(network(torch, alpha[n] * x, float(ours_t)), t, x).prev_sample.double()
        if not heuns or n % 2 or n == len(at) - 1:
            theirs.append(x)
    theirs = np.stack(theirs)
    assert distance(pictures / x_alpha.reshape(-1, 1, 1, 1), theirs) < TOLERANCE
    other = ours(euler if heuns else heun, times)
    assert distance(other / x_alpha.reshape(-1, 1, 1, 1), theirs) > CONTROL  # the other solver is seen


@pytest.mark.parametrize("steps", [5, 20])
@pytest.mark.parametrize(("make", "algorithm"), [(dpmpp_2m, "dpmsolver++"), (dpmpp_2m_sde, "sde-dpmsolver++")])
def test_dpm_solver(x64, make, algorithm, steps):
    times = timesteps.uniform(steps, T)
    scheduler = diffusers.DPMSolverMultistepScheduler(T, algorithm_type=algorithm, timestep_spacing="trailing")
    scheduler.set_timesteps(steps)
    scheduler.sigmas = levels(times)
    pictures = ours(make, times)
    x = torch.from_numpy(np.array(pictures[0]))
    theirs = [x]
    for t, ours_t, noise in zip(scheduler.timesteps, times, noises(steps), strict=False):
        output = network(torch, x, float(ours_t))
        x = scheduler.step(output, t, x, variance_noise=noise).prev_sample.double()
        theirs.append(x)
    assert distance(pictures, np.stack(theirs)) < TOLERANCE
    other = ours(euler if make is dpmpp_2m else dpmpp_2m, times)
    assert distance(other, np.stack(theirs)) > CONTROL  # no memory, or no noise


@pytest.mark.parametrize(
    ("make", "name"), [(euler, "EDMEulerScheduler"), (dpmpp_2m, "EDMDPMSolverMultistepScheduler")]
)
def test_edm_schedulers(x64, make, name):
    """Their preconditioning is ours as well: the network is given and says what Karras et al. write."""
    times = timesteps.karras(EDM, 18)
    scheduler = getattr(diffusers, name)()
    scheduler.set_timesteps(18)
    np.testing.assert_allclose(scheduler.sigmas, levels(times, EDM), rtol=1e-5)
    pictures = ours(make, times, EDM, lambda schedule, _: parameterizations.edm(schedule))
    x = torch.from_numpy(np.array(pictures[0]))
    theirs = [x]
    for t in scheduler.timesteps:
        output = network(torch, scheduler.scale_model_input(x, t), float(t))
        x = scheduler.step(output, t, x).prev_sample.double()
        theirs.append(x)
    assert distance(pictures, np.stack(theirs)) < TOLERANCE
