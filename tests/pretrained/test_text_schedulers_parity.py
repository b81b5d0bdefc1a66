"""Schedulers of text-to-image folders against diffusers: unCLIP's chains, listed grids, noise by a second table.

Both sides see one toy network and the same noise. Their tables are put in double precision: at index 999 of a cosine
float32's alone move an image by 3e-2.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.diffusion import samplers
from diffusion_jax.diffusion.gaussian import q_sample
from diffusion_jax.pretrained.schedulers import scheduler

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

SHAPE = (2, 4, 4, 3)
KEYS = rng.per_example(rng.root(0), jnp.arange(SHAPE[0]))
FAST = [999, 800, 799, 600, 599, 400, 200, 199, 0]  # unequal strides, as IF's lists have

KARLO = {"_class_name": "UnCLIPScheduler", "beta_schedule": "squaredcos_cap_v2", "num_train_timesteps": 1000}
CHAINS = {
    "prior": (KARLO | {"prediction_type": "sample", "clip_sample_range": 0.9, "clip_sample": True}, 10),
    "decoder": (KARLO | {"variance_type": "learned_range", "prediction_type": "epsilon", "beta_start": 0.3}, 10),
    "super-resolution": (KARLO | {"variance_type": "fixed_small_log"}, 7),
    "without bounds": (KARLO | {"clip_sample": False, "prediction_type": "sample"}, 2),
    "IF": (
        {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2", "variance_type": "learned_range"}
        | {"clip_sample": False, "thresholding": True, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5},
        FAST,
    ),
    "SDXL": (
        {"_class_name": "EulerDiscreteScheduler", "timestep_spacing": "leading", "steps_offset": 1}
        | {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "sample_max_value": 1.0},
        FAST,
    ),
    "turbo": ({"_class_name": "EulerAncestralDiscreteScheduler", "timestep_spacing": "trailing"}, 4),
    "DPM++": ({"_class_name": "DPMSolverMultistepScheduler"}, [999, 800, 640, 400, 120, 0]),
    "DPM++ with Karras's levels": (
        {"_class_name": "DPMSolverMultistepScheduler", "algorithm_type": "sde-dpmsolver++", "use_karras_sigmas": True}
        | {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "skip_prk_steps": True},
        12,
    ),
    "LCM": ({"_class_name": "LCMScheduler"}, [999, 759, 499, 259]),
    "ends with noise": ({"_class_name": "DDPMScheduler", "clip_sample": False}, [900, 500, 40]),
}


def network(xp, x, time):
    """Neither linear nor entrywise, beyond [-1, 1], and sensitive to time."""
    return 1.5 * xp.tanh(1.1 * x - 0.4 * xp.roll(x, 1, -1) + 2.0 * (time / 1000 - 0.5))


def said(xp, x, time, config, axis):
    learned = config.get("variance_type") == "learned_range"
    return xp.concatenate([network(xp, x, time), xp.tanh(0.7 * x)], axis) if learned else network(xp, x, time)


def drawn(number):
    return np.array(rng.normal_like(rng.each(KEYS, number), jnp.zeros(SHAPE)))


def grid_of(parts, walk):
    return parts.grid(walk) if isinstance(walk, int) else parts.listed(walk)


def our_chain(config, walk):
    parts = scheduler.sampling(config)
    sample_fn = samplers.make_sample_fn(
        lambda params, x, time: said(jnp, x, time.reshape(-1, 1, 1, 1), config, -1),
        parts.parameterization,
        parts.process,
        parts.sampler,
        grid_of(parts, walk),
        SHAPE[0],
        SHAPE[1:],
        (*parts.own, parts.variance),
    )
    with jax.disable_jit():
        return np.asarray(sample_fn(None, rng.root(0)))


def theirs(config):
    found = getattr(diffusers, config["_class_name"]).from_config(config)
    table = scheduler.betas(config)
    found.betas, found.alphas = torch.from_numpy(table), torch.from_numpy(1 - table)
    found.alphas_cumprod = torch.cumprod(found.alphas, 0)
    return found


def channels_first(x):
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


def their_chain(config, walk, monkeypatch):
    found = theirs(config)
    steps = {"num_inference_steps": walk} if isinstance(walk, int) else {"timesteps": walk}
    found.set_timesteps(**steps)
    if isinstance(getattr(found, "sigmas", None), torch.Tensor):  # in double precision too
        parts = scheduler.sampling(config)
        times = grid_of(parts, walk)
        levels = torch.from_numpy(parts.schedule.sigma(times) / parts.schedule.alpha(times))
        torch.testing.assert_close(found.sigmas.double(), levels, rtol=1e-5, atol=1e-7)
        found.sigmas = levels
    noise = (channels_first(drawn(n)) for n in itertools.count(1))
    monkeypatch.setattr(f"{type(found).__module__}.randn_tensor", lambda *_, **__: next(noise), raising=False)
    x = channels_first(drawn(0)) * found.init_noise_sigma
    moved = {"concatenate": torch.cat, "tanh": torch.tanh, "roll": lambda x, by, axis: torch.roll(x, by, 1)}
    xp = type("xp", (), {name: staticmethod(f) for name, f in moved.items()})
    for t, after in itertools.zip_longest(found.timesteps, found.timesteps[1:]):
        output = said(xp, found.scale_model_input(x, t), t.double(), config, 1)
        unclip = {"prev_timestep": after} if config["_class_name"] == "UnCLIPScheduler" else {}
        x = found.step(output, t, x, **unclip).prev_sample.double()
    return x.numpy().transpose(0, 2, 3, 1)


def distance(ours, theirs):
    return np.abs(ours - theirs).max() / np.abs(theirs).max()


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("key", CHAINS)
def test_chains_are_theirs(key, monkeypatch):
    config, walk = CHAINS[key]
    there = their_chain(config, walk, monkeypatch)
    found = distance(our_chain(config, walk), there)
    print(f"{key} {found:.1e}")
    assert found < 1e-5


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("key", "change"),
    [
        ("prior", {"clip_sample_range": 1.0}),
        ("decoder", {"variance_type": "fixed_small_log"}),
        ("super-resolution", {"_class_name": "DDPMScheduler"}),  # of leading steps
    ],
)
def test_a_changed_value_is_seen(key, change, monkeypatch):
    """Control."""
    config, walk = CHAINS[key]
    assert distance(our_chain(config | change, walk), their_chain(config, walk, monkeypatch)) > 1e-3


NOISING = {
    "IF, Stable unCLIP": {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"},
    "low_res_scheduler": {
        "_class_name": "DDPMScheduler",
        "beta_schedule": "scaled_linear",
        "beta_start": 0.0001,
        "beta_end": 0.02,
    },
    "Karlo": KARLO | {"trained_betas": [0.5]},  # which it does not listen to
    "another default": {"_class_name": "HeunDiscreteScheduler", "clip_sample": True},
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("config", NOISING.values(), ids=NOISING)
def test_noise_of_a_second_table_is_theirs(config):
    found = scheduler.table_of(config)
    plain = getattr(diffusers, config["_class_name"]).from_config(config)
    np.testing.assert_allclose(scheduler.betas(config), plain.betas, rtol=1e-4, atol=1e-6)
    index, x0, eps = np.array([250, 3]), drawn(0), drawn(1)
    adds = diffusers.DDPMScheduler(trained_betas=scheduler.betas(config), clip_sample=False)
    adds.alphas_cumprod = torch.from_numpy(np.cumprod(1 - scheduler.betas(config)))
    wanted = adds.add_noise(torch.from_numpy(x0), torch.from_numpy(eps), torch.from_numpy(index))
    noised = q_sample(found.schedule, x0, (index + 1) / found.num, eps)
    np.testing.assert_allclose(noised, wanted, atol=1e-10)
