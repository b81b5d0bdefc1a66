"""The terms of the bound, one by one."""

from functools import partial

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import images
from diffusion_jax.diffusion import likelihood, schedules

T = 1000
SCHEDULE = schedules.from_betas(schedules.linear_betas(T))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_prior_term_has_the_published_value(dtype, x64):
    # E[x^2] = 1/3 through its two-point realisation, x = +-sqrt(1/3).
    x0 = jnp.array([3**-0.5, -(3**-0.5)], dtype)
    term = likelihood.bits(likelihood.prior_term(SCHEDULE, x0).mean())
    np.testing.assert_allclose(term, 9.7e-6, rtol=0.01)
    alpha_bar = 4.03583e-5  # and in closed form
    want = 0.5 * (alpha_bar / 3 - alpha_bar - np.log1p(-alpha_bar)) / np.log(2)
    np.testing.assert_allclose(term, want, rtol=2e-6)


def test_prior_term_is_that_of_the_processs_prior(x64):
    """Not variance preserving, and from the middle of a chain; against the KL of two normal laws."""
    x0 = jnp.array([[0.3, -2.0], [0.0, 1.0]])
    schedule, t = schedules.edm(3.0), 0.5
    want = Gaussian(x0, 1.5**2).kl(Gaussian(0.0, 1 + 3.0**2))
    np.testing.assert_allclose(likelihood.prior_term(schedule, x0, t), want, rtol=1e-12)
    np.testing.assert_allclose(likelihood.prior_term(schedule, x0, jnp.full(2, t)), want, rtol=1e-12)


CASES = [(256, mean, std) for mean in (-1.3, -0.2, 0.0, 0.99) for std in (0.005, 0.1, 2.0)]


@pytest.mark.parametrize(("levels", "mean", "std"), [*CASES, (5, -0.2, 0.1)])
def test_decoder_mass_sums_to_one(x64, levels, mean, std):
    x0 = jnp.arange(levels) / ((levels - 1) / 2) - 1
    kernel = Gaussian(jnp.full(levels, mean), jnp.full(levels, std**2))
    nats = likelihood.decoder_term(kernel, x0, half_bin=1 / (levels - 1), floor=1e-300)
    np.testing.assert_allclose(jnp.exp(-nats).sum(), 1, atol=1e-14)


def test_levels_are_checked():
    every = np.arange(256, dtype=np.uint8).reshape(2, 128)
    likelihood.check_levels(images.to_float(every))
    likelihood.check_levels(np.array([-1.0, 0.0, 1.0]), half_bin=0.5)
    for wrong in (1 + 1 / 127.5, -1 - 1 / 127.5, 1.01, 0.0, np.nan):
        with pytest.raises(InputError, match="256 levels"):
            likelihood.check_levels(np.array([1.0, wrong]))
    with pytest.raises(InputError, match="4 levels"):
        likelihood.check_levels(images.to_float(every), half_bin=1 / 3)


def test_a_decoder_may_be_given_another_variance():
    kernel, x0 = Gaussian(jnp.zeros((2, 3)), jnp.full((2, 3), 9.0)), jnp.full((2, 3), 0.2)
    decoder = partial(likelihood.decoder_term, half_bin=0.2)
    np.testing.assert_array_equal(
        likelihood.at_variance(0.25, decoder)(kernel, x0), decoder(kernel._replace(var=jnp.full((2, 3), 0.25)), x0)
    )
