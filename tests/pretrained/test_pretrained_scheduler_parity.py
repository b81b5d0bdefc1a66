"""Schedulers of published configs against diffusers: tables, grids, bounds, and whole chains.

diffusers keeps its tables in float32, so tables are compared at 1e-4. Chains differ by 1e-6, those of Euler by 8e-5;
they are compared at 2e-4. A chain with a value of the config changed is off by more than 2e-3, as the controls show.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Interpolated
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import parameterizations, samplers
from diffusion_jax.pretrained.schedulers import scheduler

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")
from diffusers.schedulers import scheduling_consistency_models  # noqa: E402

SHAPE = (2, 4, 4, 3)

# google/ddpm-cifar10-32, Stable Diffusion 1.5 and 2.1, DiT, SDXL; then what else is possible.
CIFAR10 = {
    "_class_name": "DDPMScheduler",
    "beta_end": 0.02,
    "beta_schedule": "linear",
    "beta_start": 0.0001,
    "clip_sample": True,
    "num_train_timesteps": 1000,
    "trained_betas": None,
    "variance_type": "fixed_large",
}
LATENT = {"beta_end": 0.012, "beta_schedule": "scaled_linear", "beta_start": 0.00085, "clip_sample": False}
STABLE = LATENT | {"num_train_timesteps": 1000, "set_alpha_to_one": False, "skip_prk_steps": True, "steps_offset": 1}
CONFIGS = {
    "cifar10": CIFAR10,
    "sd15": {"_class_name": "PNDMScheduler"} | STABLE,
    "sd15 v": {"_class_name": "PNDMScheduler", "prediction_type": "v_prediction"} | STABLE,
    "pndm": {"_class_name": "PNDMScheduler"} | STABLE | {"skip_prk_steps": False, "set_alpha_to_one": True},
    "pndm as by default": {"_class_name": "PNDMScheduler"},
    "sd21": {"_class_name": "DDIMScheduler", "prediction_type": "v_prediction"} | STABLE,
    "dit": {"_class_name": "DDIMScheduler", "clip_sample": False},
    "sdxl": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading"} | LATENT | {"steps_offset": 1},
    "dpm": {"_class_name": "DPMSolverMultistepScheduler"} | STABLE | {"timestep_spacing": "leading"},
    "dpm linspace": {"_class_name": "DPMSolverMultistepScheduler"},
    "dpm trailing": {"_class_name": "DPMSolverMultistepScheduler", "timestep_spacing": "trailing"},
    "dpm to sigma_min": {"_class_name": "DPMSolverMultistepScheduler", "final_sigmas_type": "sigma_min"},
    "cosine": {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2", "timestep_spacing": "linspace"},
    "sigmoid": {"_class_name": "DDPMScheduler", "beta_schedule": "sigmoid", "timestep_spacing": "trailing"},
    "trained": {"_class_name": "DDPMScheduler", "num_train_timesteps": 5, "trained_betas": [0.1, 0.2, 0.3, 0.4, 0.5]},
    "zero snr": {
        "_class_name": "DDIMScheduler",
        "rescale_betas_zero_snr": True,
        "prediction_type": "v_prediction",
        "timestep_spacing": "trailing",
        "clip_sample": False,
    },
    "clipped": {"_class_name": "DDIMScheduler", "clip_sample_range": 0.5},
    "sample": {"_class_name": "DDIMScheduler", "prediction_type": "sample", "num_train_timesteps": 300}
    | {"clip_sample": False},
    "threshold": {
        "_class_name": "DDIMScheduler",
        "thresholding": True,
        "dynamic_thresholding_ratio": 0.7,
        "sample_max_value": 1.5,
    },
    "euler trailing": {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "trailing"},
}


def theirs(config):
    return getattr(diffusers, config["_class_name"]).from_config(config)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_tables_are_theirs(config):
    schedule, scheduler_ = scheduler.sampling(config).schedule, theirs(config)
    num = scheduler_.config.num_train_timesteps
    times = np.arange(1, num + 1) / num
    np.testing.assert_allclose(scheduler.betas(config), scheduler_.betas, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(schedule.alpha(times) ** 2, scheduler_.alphas_cumprod, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_grids_are_theirs(config):
    num = theirs(config).config.num_train_timesteps
    fewest = 2 if theirs(config).config.get("skip_prk_steps", True) else 4  # PNDM's own can take no less
    for steps in [n for n in (2, 3, 7, 50, 64, 250, 500) if fewest <= n < num]:
        scheduler_ = theirs(config)
        scheduler_.set_timesteps(steps)
        index = np.asarray(scheduler_.timesteps, np.float64)
        if config["_class_name"] == "PNDMScheduler":  # its first steps also look between, or twice
            index = np.asarray(scheduler_._timesteps[::-1], np.float64)
        grid = scheduler.sampling(config).grid
        if not fits(scheduler_.config, steps):
            with pytest.raises(InputError, match="take "):
                grid(steps)
            continue
        times = grid(steps)
        looked_at = np.rint(times * num) - 1
        np.testing.assert_array_equal(looked_at[: len(index)], index, err_msg=f"{steps} steps")
        assert len(times) in (len(index), len(index) + 1)
        assert times[-1] == (scheduler_.alphas_cumprod[0] == end(scheduler_)) / num


def fits(config, steps):
    """Whether the chain starts in the table's last twentieth, but for a stride; and PNDM halves strides."""
    num, spaced = config.num_train_timesteps, steps + ("solver_order" in config)
    midway = config.timestep_spacing == "leading" and num % spaced > num / 20
    return not midway and (config.get("skip_prk_steps", True) or num // steps % 2 == 0)


def end(scheduler_):
    """alpha_bar where their chain ends."""
    if hasattr(scheduler_, "final_alpha_cumprod"):
        return scheduler_.final_alpha_cumprod
    sigmas = getattr(scheduler_, "sigmas", None)
    if sigmas is None or sigmas[-1] == 0:
        return 1.0
    return scheduler_.alphas_cumprod[0]


# ---- Chains. A fixed network that is neither linear nor entrywise, for `jax.numpy` and torch alike.


def network(xp, x, time):
    return 1.5 * xp.tanh(1.1 * x - 0.4 * xp.roll(x, 1, -1) + 0.3 * (time / 1000 - 0.5))


def said(parts):
    """The network as a denoiser."""
    return parameterizations.denoiser(
        lambda x, time: network(jnp, x, time.reshape(-1, 1, 1, 1)), parts.parameterization
    )


def our_chain(config, steps, x):
    parts = scheduler.sampling(config)
    denoise = said(parts)
    for transform in (*parts.own, parts.variance):
        denoise = transform(denoise)
    keys = rng.per_example(jax.random.key(0), jnp.arange(len(x)))
    return np.asarray(samplers.solve(parts.sampler, parts.grid(steps), denoise, jnp.asarray(x), keys))


def their_chain(config, steps, x):
    """The usual loop; what is returned is at the noise level where the chain ends, in our units."""
    scheduler_ = theirs(config)
    scheduler_.set_timesteps(steps)
    x = torch.from_numpy(x) * scheduler_.init_noise_sigma
    for t in scheduler_.timesteps:
        output = network(torch, scheduler_.scale_model_input(x, t), t.double())
        x = scheduler_.step(output, t, x).prev_sample
    return x.numpy()


def noise():
    return np.random.default_rng(0).normal(size=SHAPE)


def distance(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


PNDM = ("sd15", "sd15 v", "pndm", "pndm as by default")
DETERMINISTIC = (*PNDM, "sd21", "dit", "sdxl", "dpm", "dpm trailing", "zero snr", "sample", "euler trailing")


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("key", DETERMINISTIC)
def test_chains_without_noise_are_theirs(key):
    config, steps = CONFIGS[key], 10
    found = distance(our_chain(config, steps, noise()), their_chain(config, steps, noise()))
    print(f"{found:.1e}")
    assert found < 2e-4


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("sd15", {"skip_prk_steps": False}),
        ("sd15", {"set_alpha_to_one": True}),
        ("pndm", {"skip_prk_steps": True}),
        ("pndm", {"_class_name": "DDIMScheduler", "skip_prk_steps": False, "clip_sample": False}),
        ("sd21", {"prediction_type": "epsilon"}),
        ("sd21", {"set_alpha_to_one": True}),
        ("sd21", {"steps_offset": 0}),
        ("dit", {"clip_sample": True}),
        ("dit", {"beta_schedule": "scaled_linear"}),
        ("dit", {"timestep_spacing": "trailing"}),
        ("zero snr", {"rescale_betas_zero_snr": False}),
    ],
)
def test_a_changed_value_is_seen(key, change):
    """Control."""
    config, steps = CONFIGS[key], 10
    assert distance(our_chain(config | change, steps, noise()), their_chain(config, steps, noise())) > 2e-3


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("key", ["clipped", "threshold"])
def test_bounds_of_x0_are_theirs(key):
    """One step to s = 0, which returns the estimate; diffusers carries on other noise where it clips."""
    config, x = CONFIGS[key], 3 * noise()
    last = scheduler.sampling(config).grid(50)[-2:]
    index = round(last[0] * 1000) - 1
    scheduler_ = theirs(config)
    scheduler_.set_timesteps(50)
    output = network(torch, torch.from_numpy(x), index)
    their_x0 = scheduler_.step(output, index, torch.from_numpy(x)).pred_original_sample.numpy()
    axes = (0, 2, 3, 1)  # diffusers takes the second axis for channels, which its quantile ignores
    parts = scheduler.sampling(config)
    denoise = said(parts)
    (bound,) = parts.transforms
    ours = bound(denoise)(jnp.asarray(x), last[0]).mean
    np.testing.assert_allclose(ours.transpose(axes), their_x0.transpose(axes), atol=1e-4)
    assert np.abs(ours).max() <= 1 + 1e-6
    assert np.abs(denoise(jnp.asarray(x), last[0]).mean).max() > 1.5


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kind", ["fixed_small", "fixed_small_log", "fixed_large", "learned_range"])
def test_variances_are_theirs(kind):
    """Of the kernel between two neighbours of a strided chain."""
    config = {"_class_name": "DDPMScheduler", "variance_type": kind, "clip_sample": False}
    parts, scheduler_ = scheduler.sampling(config), theirs(config)
    scheduler_.set_timesteps(10)
    t, s = parts.grid(10)[4:6]
    index = round(t * 1000) - 1
    output = np.concatenate([noise(), np.linspace(-1, 1, noise().size).reshape(SHAPE)], axis=-1)
    fraction, x = output[..., 3:], jnp.asarray(noise())
    output = jnp.asarray(output if kind == "learned_range" else output[..., :3])
    estimate = parts.variance(lambda x, t: parts.parameterization.read(output, x, t))(x, t)
    assert isinstance(estimate, Interpolated) == (kind == "learned_range")
    kernel = parts.process.bridge(t, s)(estimate, x)
    variance = scheduler_._get_variance(index, torch.from_numpy(fraction))
    variance = {"learned_range": torch.exp, "fixed_small_log": torch.square}.get(kind, lambda v: v)(variance)
    np.testing.assert_allclose(kernel.var, np.broadcast_to(variance, SHAPE), rtol=1e-3)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_consistency_chains_are_theirs(monkeypatch, steps):
    """The same noise on both sides; the last step draws it in vain."""
    config = {"_class_name": "CMStochasticIterativeScheduler"}
    keys = rng.per_example(jax.random.key(0), jnp.arange(len(noise())))
    draw = jax.vmap(lambda key: jax.random.normal(key, SHAPE[1:]))
    drawn = iter([torch.from_numpy(np.array(draw(rng.each(keys, n)))) for n in range(1, steps + 1)])
    monkeypatch.setattr(scheduling_consistency_models, "randn_tensor", lambda *args, **kwargs: next(drawn))
    found = distance(our_chain(config, steps, 80 * noise()), their_chain(config, steps, noise()))
    print(f"{found:.1e}")
    assert found < 1e-5


def test_the_target_of_a_consistency_model_is_what_gives_x0(x64):
    parts = scheduler.sampling({"_class_name": "CMStochasticIterativeScheduler"})
    x0, eps, t = jnp.asarray(noise()), jnp.asarray(noise()[::-1]), jnp.array([0.3, 0.01])
    x_t = x0 + parts.schedule.sigma(t)[:, None, None, None] * eps
    estimate = parts.parameterization.read(parts.parameterization.target(x0, eps, t), x_t, t)
    np.testing.assert_allclose(estimate.mean, x0, atol=1e-8)
