"""What a denoising autoencoder is shown, and what it is compared with."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.autoencoding import corruptions, laws, objectives
from diffusion_jax.autoencoding.codes import Code
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import processes, schedules

N, SIGMA, RATE = 20_000, 0.3, 0.4
KEYS = rng.per_example(rng.root(0), jnp.arange(N))
GAUSSIAN = corruptions.at(processes.gaussian(schedules.edm(SIGMA)).corrupt, 1.0)


def test_a_process_at_one_time_adds_noise():
    """Seed 0, 40,000 numbers: moments within 5 standard errors (false alarms: 6e-7 each)."""
    noise = np.asarray(jax.vmap(GAUSSIAN)(KEYS, jnp.ones((N, 2))), np.float64) - 1
    assert abs(noise.mean()) < 5 * SIGMA / noise.size**0.5
    assert abs(noise.var() / SIGMA**2 - 1) < 5 * (2 / noise.size) ** 0.5


def test_masking_keeps_an_entry_or_makes_it_0_and_divides_nothing():
    """Seed 0, 40,000 coins: their share within 5 standard errors (false alarms: 6e-7)."""
    x = jnp.full((N, 2), 0.7)
    seen = np.asarray(jax.vmap(corruptions.masked(RATE))(KEYS, x))
    assert set(np.unique(seen)) == {np.float32(0), np.float32(0.7)}
    assert abs((seen == 0).mean() - RATE) < 5 * (RATE * (1 - RATE) / seen.size) ** 0.5
    np.testing.assert_array_equal(jax.vmap(corruptions.masked(0.0))(KEYS, x), x)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_mask_outside_its_range_is_refused(rate):
    with pytest.raises(InputError, match=r"a share of .* of the entries is masked; give one from 0 to less than 1"):
        corruptions.masked(rate)


@pytest.mark.parametrize("spoil", [GAUSSIAN, corruptions.masked(RATE)], ids=["noise", "mask"])
def test_the_encoder_is_shown_what_is_spoilt_and_the_loss_asks_for_all(spoil):
    """With the identity as both, the loss is the squared distance from x to what was shown; a key is used once."""
    shown = []

    def code(params, keys, x):
        shown.append(x)
        nothing = jnp.zeros(len(x))
        return Code(x, nothing, nothing, x)

    x = jnp.ones((64, 5))
    loss = objectives.loss(code, laws.gaussian(0.5), spoil=spoil)
    value, info = loss(KEYS[:64], {}, x, None)
    squared = np.sum((np.asarray(shown[0]) - 1) ** 2, axis=1)
    np.testing.assert_allclose(value, squared + 2.5 * np.log(np.pi), rtol=1e-5)
    np.testing.assert_allclose(info["distortion"], value)
    assert len(np.unique(squared)) > 1
    assert (np.abs(np.asarray(shown[0]) - 1) > 0).any(axis=0).all()
