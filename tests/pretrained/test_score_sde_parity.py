"""ScoreSdeVeScheduler's chain, as diffusers' pipeline calls it, with our noise; one image, for they take means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import samplers
from diffusion_jax.pretrained.schedulers import scheduler

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

SHAPE = (1, 3, 4, 3)
KEY = jax.random.key(0)
CONFIG = {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 50.0, "snr": 0.2, "correct_steps": 2}


def score(xp, x, level):
    """Of a level for each, [B, 1, 1, 1]; neither linear nor entrywise."""
    return (xp.tanh(1.1 * x - 0.4 * xp.roll(x, 1, -1)) - x) / (1 + level**2)


def ours(config, steps):
    parts = scheduler.sampling(config)
    sample_fn = samplers.make_sample_fn(
        lambda params, x, level: score(jnp, x, level.reshape(-1, 1, 1, 1)),
        parts.parameterization,
        parts.process,
        parts.sampler,
        parts.grid(steps),
        SHAPE[0],
        SHAPE[1:],
    )
    return np.asarray(jax.jit(sample_fn)(None, KEY))


def theirs(config, steps, monkeypatch):
    found = diffusers.ScoreSdeVeScheduler.from_config(config)
    found.set_timesteps(steps)
    # In float32 their rounding moves some steps by a level.
    found.timesteps = torch.linspace(1, found.config.sampling_eps, steps, dtype=torch.float64)
    found.set_sigmas(steps)
    keys, noises = rng.per_example(KEY, jnp.arange(SHAPE[0])), []
    for n in range(1, steps + 1):
        predict, correct = rng.split(rng.each(keys, n), 2)
        noises += [rng.each(correct, j) for j in range(found.config.correct_steps)] + [predict]
    noise = iter([torch.from_numpy(np.array(rng.normal_like(k, jnp.zeros(SHAPE)))) for k in noises])
    module = type(found).__module__
    monkeypatch.setattr(f"{module}.randn_tensor", lambda *_, **__: next(noise))
    first = rng.normal_like(rng.each(keys, 0), jnp.zeros(SHAPE))
    x = torch.from_numpy(np.array(first)) * found.init_noise_sigma
    for i, t in enumerate(found.timesteps):
        level = found.sigmas[i].reshape(1, 1, 1, 1)
        for _ in range(found.config.correct_steps):
            x = found.step_correct(score(torch, x, level), x).prev_sample
        output = found.step_pred(score(torch, x, level), t, x)
        x, mean = output.prev_sample, output.prev_sample_mean
    return mean.numpy()


def test_a_chain_is_equal(x64, monkeypatch):
    there = theirs(CONFIG, 12, monkeypatch)
    distance = np.linalg.norm(ours(CONFIG, 12) - there) / np.linalg.norm(there)
    control = np.linalg.norm(ours(CONFIG | {"snr": 0.21}, 12) - there) / np.linalg.norm(there)
    print(distance, control)
    assert distance < 1e-5 < 1e-3 < control


def test_what_is_refused():
    for change, message in (
        ({"sigma_min": 60.0}, "a number between 0 and sigma_max"),
        ({"correct_steps": 0}, "an integer from 1"),
        ({"sampling_eps": 0.2}, "a number from 0 to 0.1"),
    ):
        with pytest.raises(InputError, match=message):
            scheduler.sampling(CONFIG | change)
    for steps, message in ((1, "2 at least"), (2001, "must lie in 1, ..., 2000")):
        with pytest.raises(InputError, match=message):
            scheduler.sampling(CONFIG).grid(steps)
