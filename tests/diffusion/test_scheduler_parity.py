"""Our chains against diffusers' schedulers, step for step, fed the same network outputs and the same noise.

diffusers keeps its tables in float32, where 1 - alpha_bar has lost four digits at the clean end. Its table of
alpha_bar is replaced by a float64 one here, and ours runs in float64: the pictures on the way then agree to
rounding. Untouched, in float32, it is compared once, at the tolerance that its own rounding sets.

diffusers counts a table's times from 0: its t is our i - 1.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.diffusion import (
    gaussian,
    guidance,
    parameterizations,
    processes,
    samplers,
    schedules,
    timesteps,
    variances,
)
from diffusion_jax.diffusion.samplers.pndm import IMPROVED_EULER, NOISE, RUNGE_KUTTA, VELOCITY, Start

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

T = 1000
BETAS = schedules.linear_betas(T)
SCHEDULE = schedules.from_betas(BETAS)
SHAPE = (3, 2, 4, 5)
KEY = jax.random.key(0)
QUICK = {"xla_backend_optimization_level": "0"}  # compiling is most of the time here
TOLERANCE = 1e-10  # of whole trajectories in float64; 4e-12 is the worst that was seen

PREDICTIONS = {
    "epsilon": parameterizations.eps,
    "sample": lambda schedule, time: parameterizations.x0(time),
    "v_prediction": parameterizations.v,
}


def network(xp, x, time):
    """A fixed network that is neither linear nor entrywise, for `jax.numpy` and torch alike; `time` broadcasts.

    It reaches beyond [-1, 1], so that clipping matters whatever its output is said to mean.
    """
    return 1.5 * xp.tanh(1.1 * x - 0.4 * xp.roll(x, 1, -1) + 0.3 * (time / T - 0.5))


def our_chain(prediction, times, refresh=gaussian.refreshed, transforms=(), sampler=None):
    """The pictures before, between and after the N steps, [N + 1, *SHAPE]; ancestral, unless there is a `sampler`."""
    process = processes.gaussian(SCHEDULE, refresh)
    sample_fn = samplers.make_sample_fn(
        lambda params, x, time: network(jnp, x, time.reshape(-1, 1, 1, 1)),
        PREDICTIONS[prediction](SCHEDULE, parameterizations.table_index(T)),
        process,
        sampler or samplers.ancestral(process),
        times,
        SHAPE[0],
        SHAPE[1:],
        transforms,
        functools.partial(samplers.film, frames=T),
    )
    return np.asarray(jax.jit(sample_fn, compiler_options=QUICK)(None, KEY)[1])


def noises(steps):
    """What `our_chain` draws at its N steps, as an iterator over tensors of SHAPE; zero at the last step.

    Algorithm 2 adds no noise to the finished image. diffusers leaves it out where t = 0 in its own count, so
    that its "trailing" chains of fixed_large would end in a noisy image.
    """
    keys = rng.per_example(KEY, jnp.arange(SHAPE[0]))
    draw = jax.vmap(lambda key: jax.random.normal(key, SHAPE[1:]))
    drawn = np.array(jax.vmap(lambda n: draw(rng.each(keys, n)))(jnp.arange(1, steps + 1)))
    drawn[-1] = 0
    return iter(torch.from_numpy(drawn))


def their_chain(scheduler, step, x):
    """The pictures of diffusers' usual loop from `x`; `step(output, t, x)` is its scheduler's."""
    pictures = [torch.from_numpy(np.array(x))]
    for t in scheduler.timesteps:
        output = network(torch, pictures[-1], t.double())
        pictures.append(step(output, t, pictures[-1]).prev_sample)
    return np.stack(pictures)


def double(scheduler):
    """The same scheduler, its table in double precision."""
    scheduler.alphas_cumprod = torch.cumprod(1 - torch.from_numpy(BETAS), dim=0)
    return scheduler


def table_indices(times):
    return np.rint(times[:-1] * T).astype(int) - 1


def distance(ours, theirs):
    """The worst step's difference, relative to that step's picture."""
    axes = tuple(range(1, theirs.ndim))
    worst = (np.abs(ours - theirs).max(axes) / np.abs(theirs).max(axes)).max()
    print(f"distance {worst:.1e}")
    return worst


def ddpm_distance(monkeypatch, steps, prediction="epsilon", clip=True, variance="fixed_large", their_variance=None):
    """DDPM's sampler over `timesteps.uniform(steps, T)`, ours against DDPMScheduler's."""
    scheduler = double(
        diffusers.DDPMScheduler(
            T,
            prediction_type=prediction,
            clip_sample=clip,
            variance_type=their_variance or variance,
            timestep_spacing="trailing",
        )
    )
    scheduler.set_timesteps(steps)
    times = timesteps.uniform(steps, T)
    np.testing.assert_array_equal(table_indices(times), scheduler.timesteps)
    fill_in = {"fixed_large": variances.fixed_large, "fixed_small": variances.posterior}[variance]
    ours = our_chain(prediction, times, transforms=[guidance.clip()] * clip + [fill_in(SCHEDULE)])
    noise = noises(steps)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: next(noise))
    return distance(ours, their_chain(scheduler, scheduler.step, ours[0]))


def ddim_distance(steps, prediction="epsilon", clip=True, eta=0.5, their_eta=None, their_eps_from_clipped=True):
    """DDIM over `timesteps.leading(steps, T)`, ours against DDIMScheduler's."""
    scheduler = double(diffusers.DDIMScheduler(T, prediction_type=prediction, clip_sample=clip))
    scheduler.set_timesteps(steps)
    times = timesteps.leading(steps, T)
    np.testing.assert_array_equal(table_indices(times), scheduler.timesteps)
    ours = our_chain(prediction, times, processes.ddim(eta), [guidance.clip()] * clip)
    noise = noises(steps)

    def step(output, t, x):
        return scheduler.step(
            output,
            t,
            x,
            eta=eta if their_eta is None else their_eta,
            # Our bridge sees x0 only: its eps is what the clipped x0 implies.
            use_clipped_model_output=their_eps_from_clipped,
            variance_noise=next(noise),
        )

    return distance(ours, their_chain(scheduler, step, ours[0]))


def pndm_distance(steps, prediction="epsilon", skip=True, start=None, direction=None):
    """PNDM from index (N - 1) (T // N) + 1 down to 0, as Stable Diffusion has it, ours against PNDMScheduler's."""
    scheduler = double(diffusers.PNDMScheduler(T, prediction_type=prediction, skip_prk_steps=skip, steps_offset=1))
    scheduler.final_alpha_cumprod = scheduler.alphas_cumprod[0]
    scheduler.set_timesteps(steps)
    times = timesteps.leading(steps, T) + 1 / T
    np.testing.assert_array_equal(table_indices(times)[::-1], scheduler._timesteps)
    sampler = samplers.pndm(
        SCHEDULE,
        start or (IMPROVED_EULER if skip else RUNGE_KUTTA),
        direction or (VELOCITY if prediction == "v_prediction" else NOISE),
        near=lambda t: np.floor(t * T + 1e-6) / T,
    )
    ours = our_chain(prediction, times, sampler=sampler)
    theirs = their_chain(scheduler, scheduler.step, ours[0])
    # Theirs has a picture for every look: those between the ends of the first steps are left out.
    between = [1] if skip else [n for n in range(3 * 4) if n % 4]
    return distance(ours, np.delete(theirs, between, axis=0))


# ---- Tables and grids.


@pytest.mark.parametrize(
    ("name", "betas"),
    [
        ("linear", schedules.linear_betas),
        ("scaled_linear", schedules.quadratic_betas),
        ("sigmoid", schedules.sigmoid_betas),
        ("squaredcos_cap_v2", schedules.cosine_betas),
    ],
)
def test_tables(name, betas):
    """Theirs are float32: betas to 1e-6; a product of 1000 factors, each rounded, to 3e-5."""
    theirs = diffusers.DDPMScheduler(T, beta_schedule=name)
    np.testing.assert_allclose(betas(T), theirs.betas, rtol=1e-6)
    alpha_bar = schedules.from_betas(betas(T)).alpha(np.arange(1, T + 1) / T) ** 2
    np.testing.assert_allclose(alpha_bar, theirs.alphas_cumprod, rtol=3e-5)


@pytest.mark.parametrize(("spacing", "grid"), [("leading", timesteps.leading), ("trailing", timesteps.uniform)])
def test_grids(spacing, grid):
    scheduler = diffusers.DDPMScheduler(T, timestep_spacing=spacing)
    for steps in (2, 3, 7, 10, 30, 50, 64, 250, 999, T):
        scheduler.set_timesteps(steps)
        np.testing.assert_array_equal(table_indices(grid(steps, T)), scheduler.timesteps, err_msg=str(steps))


# ---- Forward formulas.


def test_add_noise_is_q_sample_and_get_velocity_is_v(x64):
    scheduler = double(diffusers.DDPMScheduler(T))
    index = np.array([1, 500, 1000])
    x0, eps = np.random.default_rng(0).normal(size=(2, *SHAPE))
    theirs = torch.from_numpy(x0), torch.from_numpy(eps), torch.from_numpy(index - 1)
    # The tolerance is theirs: their 1 - alpha_bar cancels, ours comes from expm1.
    for formula, ours in [(scheduler.add_noise, gaussian.q_sample), (scheduler.get_velocity, gaussian.v_from_x0)]:
        args = (x0, index / T, eps) if ours is gaussian.q_sample else (x0, eps, index / T)
        np.testing.assert_allclose(ours(SCHEDULE, *args), formula(*theirs), rtol=1e-11, atol=1e-12)


# ---- Chains.


@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
@pytest.mark.parametrize("clip", [True, False], ids=["clipped", "free"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddpm(x64, monkeypatch, prediction, clip, variance):
    assert ddpm_distance(monkeypatch, 50, prediction, clip, variance) < TOLERANCE


@pytest.mark.parametrize("steps", [T, 7])  # 7 does not divide T
@pytest.mark.parametrize("variance", ["fixed_small", "fixed_large"])
def test_ddpm_at_other_strides(x64, monkeypatch, variance, steps):
    assert ddpm_distance(monkeypatch, steps, variance=variance) < TOLERANCE


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("clip", [True, False], ids=["clipped", "free"])
@pytest.mark.parametrize("prediction", PREDICTIONS)
def test_ddim(x64, prediction, clip, eta):
    assert ddim_distance(50, prediction, clip, eta) < TOLERANCE


@pytest.mark.parametrize("steps", [10, 30])  # 30 does not divide T
def test_ddim_at_other_strides(x64, steps):
    assert ddim_distance(steps) < TOLERANCE


@pytest.mark.parametrize("skip", [True, False], ids=["improved Euler", "Runge-Kutta"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_pndm(x64, prediction, skip):
    assert pndm_distance(10, prediction, skip) < TOLERANCE


@pytest.mark.parametrize(("steps", "skip"), [(2, True), (3, True), (50, True), (4, False)])
def test_pndm_at_other_strides(x64, steps, skip):
    assert pndm_distance(steps, skip=skip) < TOLERANCE


def test_float32_against_diffusers_as_shipped():
    """DDIM, 50 steps. Rounding alone: 2e-6 was seen, where double precision has 1e-14."""
    scheduler = diffusers.DDIMScheduler(T)
    scheduler.set_timesteps(50)
    ours = our_chain("epsilon", timesteps.leading(50, T), processes.ddim(0.0), [guidance.clip()])
    step = functools.partial(scheduler.step, use_clipped_model_output=True)
    assert distance(ours, their_chain(scheduler, step, ours[0])) < 2e-5


# ---- Controls: small mistakes that must be seen, a millionfold.


WRONG_DDIM = {
    "eta off by one percent": {"their_eta": 0.505},
    "eps of the unclipped x0": {"their_eps_from_clipped": False},
}


@pytest.mark.parametrize("wrong", WRONG_DDIM.values(), ids=WRONG_DDIM)
def test_a_wrong_ddim_is_seen(x64, wrong):
    assert ddim_distance(50, **wrong) > 1e6 * TOLERANCE


WRONG_PNDM = {
    "begun with DDIM": {"start": Start((0.0,), (1.0,), 0)},
    "begun with the other": {"start": RUNGE_KUTTA},
    "noise for v": {"prediction": "v_prediction", "direction": NOISE},
}


@pytest.mark.parametrize("wrong", WRONG_PNDM.values(), ids=WRONG_PNDM)
def test_a_wrong_pndm_is_seen(x64, wrong):
    assert pndm_distance(10, **wrong) > 1e6 * TOLERANCE


def test_the_other_variance_is_seen(x64, monkeypatch):
    wrong = ddpm_distance(monkeypatch, T, variance="fixed_large", their_variance="fixed_small")
    assert wrong > 1e6 * TOLERANCE


def test_a_wrong_table_is_seen(x64, monkeypatch):
    """Betas that end at 0.02001 instead of 0.02."""
    monkeypatch.setitem(globals(), "SCHEDULE", schedules.from_betas(schedules.linear_betas(T, end=0.02001)))
    assert ddpm_distance(monkeypatch, T) > 1e6 * TOLERANCE


def test_zero_terminal_snr_is_theirs():
    from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr

    betas = schedules.linear_betas(1000)
    theirs = rescale_zero_terminal_snr(torch.tensor(betas))
    np.testing.assert_allclose(schedules.zero_terminal_snr(betas), theirs, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("steps", [50, T])
def test_a_learned_variance(monkeypatch, x64, steps):
    """Improved DDPM's: the output is twice as deep, along our last axis and along theirs."""

    def spread(xp, x, time):
        return xp.tanh(0.7 * x + 0.2 * (time / T))

    scheduler = double(diffusers.DDPMScheduler(T, variance_type="learned_range", timestep_spacing="trailing"))
    scheduler.set_timesteps(steps)
    times = timesteps.uniform(steps, T)
    process, index = processes.gaussian(SCHEDULE), parameterizations.table_index(T)
    narrowest = float(gaussian.refreshed(SCHEDULE, 2 / T, 1 / T) * SCHEDULE.sigma(1 / T) ** 2)

    def apply(params, x, time):
        time = time.reshape(-1, 1, 1, 1)
        return jnp.concatenate([network(jnp, x, time), spread(jnp, x, time)], axis=-1)

    sample_fn = samplers.make_sample_fn(
        apply,
        parameterizations.learned_range(parameterizations.eps(SCHEDULE, index), SCHEDULE, narrowest),
        process,
        samplers.ancestral(process),
        times,
        SHAPE[0],
        SHAPE[1:],
        [guidance.clip()],
        functools.partial(samplers.film, frames=T),
    )
    ours = np.asarray(jax.jit(sample_fn, compiler_options=QUICK)(None, KEY)[1])
    noise = noises(steps)
    monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: next(noise))

    def step(output, t, x):
        return scheduler.step(torch.cat([output, spread(torch, x, t.double())], dim=1), t, x)

    theirs = their_chain(scheduler, step, ours[0])
    # Their table of betas, from which they take the largest variance, is float32.
    assert distance(ours, theirs) < 1e-6
