"""Cold and noisy degradations, heat, and products; and a process that only this file knows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

from diffusion_jax.core.distributions import Gaussian, draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import samplers, schedules, timesteps
from diffusion_jax.diffusion.processes import degradation, gaussian, heat, product

pytestmark = pytest.mark.slow

SHAPE = (6, 8, 1)


def nothing(key, shape):
    return jnp.zeros(shape)


def test_cold_diffusion_lands_exactly_whatever_the_restorer_says(x64):
    """D(x, t) = x + t e: algorithm 2 returns x0 with a nonsense restorer, algorithm 1 does not (section 3.3)."""
    x0, e, nonsense = jax.random.normal(jax.random.key(0), (3, 2, *SHAPE))

    def degrade(x, t):
        return x + t * e[0]

    def restore(x, t):
        return Gaussian(nonsense * jnp.sin(x) - 3)

    times = timesteps.linear(20)
    x_1 = jax.vmap(degrade, (0, None))(x0, 1.0)

    def walk(keep):
        sampler = samplers.ancestral(degradation.cold(degrade, nothing, keep))
        # To just before the end: the last step has no residual left to keep but the estimate's own.
        return samplers.solve(sampler, times, restore, x_1, jax.random.split(jax.random.key(0), 2))

    np.testing.assert_allclose(walk(1.0), x0, atol=1e-12)
    assert float(jnp.abs(walk(0.0) - x0).max()) > 1


def test_the_modes_of_a_noisy_degradation_keep_the_marginal(x64):
    """With the true x0: mean D(x0, s) and variance sigma_s^2, for every share of fresh noise, in closed form."""
    x0 = jax.random.normal(jax.random.key(0), (1, *SHAPE))
    degrade = heat.blur(SHAPE, lambda t: 3 * t)

    def sigma(t):
        return 0.1 + 0.5 * t

    t, s = 0.8, 0.3
    for refresh in (0.0, 0.4, 1.0):
        bridge = degradation.noisy(degrade, sigma, nothing, refresh).bridge(t, s)
        centre = degrade(x0[0], t)[None]
        at_mean = bridge(Gaussian(x0), centre)
        np.testing.assert_allclose(at_mean.mean[0], degrade(x0[0], s), atol=1e-12)
        slope = (bridge(Gaussian(x0), centre + 1).mean - at_mean.mean) / 1
        np.testing.assert_allclose(slope**2 * sigma(t) ** 2 + at_mean.var, sigma(s) ** 2, rtol=1e-12)


def test_a_degradation_that_only_scales_is_ddim(x64):
    """D(x0, t) = alpha_t x0 with DDIM's noise: one bridge, reached from both sides."""
    schedule = schedules.cosine()
    x0, x_t = jax.random.normal(jax.random.key(0), (2, 3, *SHAPE))
    general = degradation.noisy(lambda x, t: schedule.alpha(t) * x, schedule.sigma, nothing)
    from diffusion_jax.diffusion.processes import ddim

    ours = general.bridge(0.8, 0.3)(Gaussian(x0), x_t)
    theirs = gaussian(schedule, ddim(0.0)).bridge(0.8, 0.3)(Gaussian(x0), x_t)
    np.testing.assert_allclose(ours.mean, theirs.mean, rtol=1e-12)


def test_the_cosine_basis_is_the_dct(x64):
    image = np.random.default_rng(0).normal(size=(6, 8))
    ours = heat.cosine_basis(6) @ image @ heat.cosine_basis(8).T
    np.testing.assert_allclose(ours, scipy.fft.dctn(image, norm="ortho"), atol=1e-13)


def test_blur_solves_the_heat_equation(x64):
    """d u / d tau = Laplacian u on the cosine basis: widths add in squares, the mean stays, detail dies."""
    x0 = jax.random.normal(jax.random.key(0), SHAPE)
    degrade = heat.blur(SHAPE, lambda t: t)
    np.testing.assert_allclose(degrade(x0, 0.0), x0, atol=1e-13)
    np.testing.assert_allclose(degrade(degrade(x0, 0.3), 0.4), degrade(x0, 0.5), atol=1e-13)
    np.testing.assert_allclose(degrade(x0, 100.0), jnp.full(SHAPE, x0.mean()), atol=1e-13)
    rates = heat.dissipation_rates(6, 8)
    wave = heat.cosine_basis(6)[2][:, None, None] * heat.cosine_basis(8)[3][None, :, None]
    np.testing.assert_allclose(degrade(wave, 0.7), wave * np.exp(-rates[2, 3] * 0.7**2 / 2), atol=1e-13)


def test_heat_dissipation_steps_to_the_less_blurred_estimate(x64):
    width = heat.log_spaced(0.5, 4.0)
    np.testing.assert_allclose(width(np.array([0.0, 0.005, 1.0])), [0, 0.5, 4.0])
    process = heat.heat_dissipation(SHAPE, width, lambda key: jnp.array([0.2]))
    x0, x_t = jax.random.normal(jax.random.key(0), (2, 1, *SHAPE))
    kernel = process.bridge(0.5, 0.4)(Gaussian(x0), x_t)
    np.testing.assert_allclose(kernel.mean[0], heat.blur(SHAPE, width)(x0[0], 0.4), atol=1e-12)
    np.testing.assert_allclose(kernel.std, jnp.full((1, *SHAPE), 0.0125), rtol=1e-12)
    corrupted, eps = process.corrupt(jax.random.key(1), x0[0], 0.5)
    np.testing.assert_allclose(corrupted, heat.blur(SHAPE, width)(x0[0], 0.5) + 0.01 * eps, atol=1e-12)
    assert process.prior(jax.random.key(0), SHAPE).shape == SHAPE


def test_a_process_that_only_this_test_knows():
    """Snow: flakes cover the image one by one. A value passed in, through the library's own scan."""
    order = jax.random.uniform(jax.random.key(3), SHAPE)

    def snow(x0, t):
        return jnp.where(order < t, 1.0, x0)

    x0 = -jnp.ones((2, *SHAPE))
    process = degradation.cold(snow, lambda key, shape: jnp.ones(shape))
    sampler = samplers.ancestral(process)
    keys = jax.random.split(jax.random.key(0), 2)
    x_1 = jax.vmap(lambda key: process.prior(key, SHAPE))(keys)
    run = functools.partial(samplers.film, frames=10)
    out, film = run(sampler, timesteps.linear(10), lambda x, t: Gaussian(x0), x_1, keys)
    np.testing.assert_allclose(out, x0)
    covered = (film == 1).mean(axis=(1, 2, 3, 4))
    assert (np.diff(covered) < 0).all()


def test_a_product_is_its_parts_side_by_side():
    schedule = schedules.cosine()
    joint = product(image=gaussian(schedule), code=gaussian(schedules.flow()))
    x0 = {"image": jnp.ones(SHAPE), "code": jnp.full(3, 2.0)}
    x_t, noise = joint.corrupt(jax.random.key(0), x0, 0.5)
    np.testing.assert_allclose(x_t["code"], 0.5 * x0["code"] + 0.5 * noise["code"], rtol=1e-6)
    assert abs(float(jnp.corrcoef(noise["image"].ravel()[:3], noise["code"])[0, 1])) < 0.999
    batch = jax.tree.map(lambda x: x[None], x_t)
    estimate = {name: Gaussian(x0[name][None]) for name in x0}
    kernel = joint.bridge(0.5, 0.2)(estimate, batch)
    alone = gaussian(schedule).bridge(0.5, 0.2)(estimate["image"], batch["image"])
    np.testing.assert_array_equal(kernel["image"].mean, alone.mean)
    drawn = draw(kernel, jax.random.split(jax.random.key(0), 1))
    assert jax.tree.map(jnp.shape, drawn) == jax.tree.map(jnp.shape, batch)
    with pytest.raises(InputError, match="joins code, image, not image"):
        joint.corrupt(jax.random.key(0), {"image": jnp.ones(SHAPE)}, 0.5)


@pytest.mark.parametrize(
    "bad", [lambda: degradation.cold(None, None, keep=2), lambda: degradation.noisy(None, None, None, refresh=-1)]
)
def test_shares_outside_the_unit_interval_are_refused(bad):
    with pytest.raises(InputError, match="must lie in"):
        bad()


@pytest.mark.parametrize(("t", "s"), [(0.5, 0.5), (0.4, 0.5), (0.5, -0.1), (1.1, 0.5), (np.nan, 0.5)])
def test_every_degradation_refuses_times_that_do_not_fall(t, s):
    def degrade(x, t):
        return x

    processes = (
        degradation.cold(degrade, nothing),
        degradation.noisy(degrade, lambda t: 1 + t, nothing),
        heat.heat_dissipation(SHAPE, heat.log_spaced(), lambda key: jnp.zeros(1)),
        product(image=degradation.cold(degrade, nothing)),
    )
    for process in processes:
        for step in ((t, s), (np.array([0.9, t]), np.array([0.8, s]))):
            with pytest.raises(InputError, match="0 <= s < t <= 1"):
                process.bridge(*step)


@pytest.mark.parametrize("sigma", [lambda t: 0.0, lambda t: t - 0.75, lambda t: np.nan * t])
def test_a_step_back_from_no_noise_is_refused(sigma):
    process = degradation.noisy(lambda x, t: x, sigma, nothing)
    for t, s in ((0.5, 0.25), (np.array([0.75, 0.5]), np.array([0.5, 0.25]))):
        with pytest.raises(InputError, match=r"sigma\(0\.\d+\) = .* take `cold`$") as caught:
            process.bridge(t, s)
        assert "\n" not in str(caught.value)
    # Nothing is divided by sigma(0): a chain may end without noise.
    degradation.noisy(lambda x, t: x, lambda t: t, nothing).bridge(0.5, 0.0)
