"""Blurring diffusion, frequency by frequency, in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.stats

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import gaussian, processes, samplers, schedules, timesteps
from diffusion_jax.diffusion.processes.blurring import (
    Spectral,
    blurring,
    eps_in_pixels,
    frequencies,
    sin_squared,
    to_pixels,
    to_spectrum,
)
from diffusion_jax.diffusion.schedules import Schedule

SHAPE = H, W, C = 3, 4, 1
SCHEDULE, WIDTH = schedules.cosine(), sin_squared(2.0)
NOISES = {
    "posterior": gaussian.refreshed,
    "ddim_0": processes.ddim(0.0),
    "ddim_half": processes.ddim(0.5),
    "renoise": processes.renoise,
}


def alpha_of(n, m, t, floor=0.001):
    """The paper's alpha of frequency (n, m), by definition."""
    rate, width = np.pi**2 * ((n / H) ** 2 + (m / W) ** 2), 2 * np.sin(np.pi * t / 2) ** 2
    return np.cos(np.pi * t / 2) * ((1 - floor) * np.exp(-rate * width**2 / 2) + floor)


def alphas(t):
    return np.array([[alpha_of(n, m, t) for m in range(W)] for n in range(H)])[..., None]


def basis():
    """Every pixel on its own: a batch of H W images, for the matrix of a linear map of images."""
    return jnp.eye(H * W).reshape(H * W, *SHAPE)


@pytest.mark.parametrize("refresh", NOISES.values(), ids=NOISES)
@pytest.mark.parametrize(("t", "s"), [(0.95, 0.9), (0.5, 0.2), (0.02, 0.01), (0.3, 0.0)])
def test_every_bridge_keeps_the_marginal_of_every_frequency(x64, refresh, t, s):
    coefficient = blurring(SHAPE, SCHEDULE, WIDTH, refresh=refresh).bridge(t, s).args[0]

    def signal(t):
        return coefficient.x_t * alphas(t) + coefficient.x0

    noise = (coefficient.x_t * SCHEDULE.sigma(t)) ** 2 + coefficient.var
    np.testing.assert_allclose(signal(t), alphas(s), rtol=1e-10)
    np.testing.assert_allclose(noise, np.full_like(noise, SCHEDULE.sigma(s) ** 2), rtol=1e-9, atol=1e-18)
    # Control: from another time it does not, unless what is there is thrown away.
    if s > 0 and refresh is not processes.renoise:
        assert np.abs(signal(t + 0.01) / alphas(s) - 1).max() > 1e-4


@pytest.mark.parametrize(("t", "s"), [(1.0, 0.9), (0.8, 0.3), (0.01, 0.0)])
def test_the_bridge_is_the_posterior_of_every_frequency(x64, t, s):
    """q(x_s | x_t, x0) by `gaussian.q_posterior`, one scalar schedule a frequency; SciPy's transform."""
    x0, x_t = np.random.default_rng(0).normal(size=(2, 2, *SHAPE))
    u0, u_t = (scipy.fft.dctn(x, axes=(1, 2), norm="ortho") for x in (x0, x_t))
    kernel = blurring(SHAPE, SCHEDULE, WIDTH).bridge(t, s)(Gaussian(jnp.asarray(x0)), jnp.asarray(x_t))
    for n, m in np.ndindex(H, W):
        schedule = Schedule(lambda t, n=n, m=m: alpha_of(n, m, t), SCHEDULE.sigma)
        posterior = gaussian.q_posterior(schedule, u0[:, n, m], u_t[:, n, m], t, s)
        np.testing.assert_allclose(kernel.spectrum.mean[:, n, m], posterior.mean, rtol=1e-9, atol=1e-12)
        var = np.full((2, 1), posterior.var)
        np.testing.assert_allclose(kernel.spectrum.var[:, n, m], var, rtol=1e-9, atol=1e-18)
    pixels = scipy.fft.idctn(kernel.spectrum.mean, axes=(1, 2), norm="ortho")
    np.testing.assert_allclose(kernel.mean, pixels, atol=1e-13)
    if s == 0:
        np.testing.assert_allclose(kernel.mean, x0, atol=1e-12)


@pytest.mark.parametrize("refresh", NOISES.values(), ids=NOISES)
def test_without_blur_it_is_gaussian_diffusion_step_for_step(x64, refresh):
    schedule = schedules.from_betas(schedules.linear_betas(8))
    ours = blurring(SHAPE, schedule, lambda t: 0.0, refresh=refresh)
    theirs = processes.gaussian(schedule, refresh)
    x0, x_t = jax.random.normal(jax.random.key(0), (2, 2, *SHAPE))
    times = timesteps.uniform(8, 8)
    grids = [process.bridge(times[:-1], times[1:]) for process in (ours, theirs)]
    for n in range(8):
        one, other = (jax.tree.map(lambda a, n=n: a[n], grid)(Gaussian(x0, 0.3), x_t) for grid in grids)
        np.testing.assert_allclose(one.mean, other.mean, atol=1e-13)
        np.testing.assert_allclose(one.spectrum.var, other.var, atol=1e-13)
    for t in (0.0, 0.5, 1.0):
        pairs = zip(*(process.corrupt(jax.random.key(1), x0[0], t) for process in (ours, theirs)), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(one, other, atol=1e-13)
    np.testing.assert_allclose(
        ours.prior(jax.random.key(2), SHAPE), to_pixels(theirs.prior(jax.random.key(2), SHAPE)), atol=1e-13
    )


# ---- Gaussian data: normal coefficients of variances POWER, as images' spectra fall off.

POWER = 1 / (0.3 + np.add.outer(np.arange(H) ** 2, np.arange(W) ** 2))[..., None]


def gain(alpha, sigma):
    """E[u_0 | u_t] / u_t."""
    return alpha * POWER / (alpha**2 * POWER + sigma**2)


@pytest.mark.parametrize("blurred", [True, False])
def test_an_exact_denoiser_of_gaussian_data_ends_with_its_covariance(x64, blurred):
    """Without fresh noise the chain is a matrix, M, and M M^T the covariance of its images: no sampling. First order.

    The control is the exact denoiser of data that is noised and not blurred.
    """
    process = blurring(SHAPE, SCHEDULE, WIDTH, refresh=processes.ddim(0.0))
    spectral = frequencies(SHAPE, SCHEDULE, WIDTH if blurred else lambda t: 0.0)
    keys = jax.random.split(jax.random.key(0), H * W)

    def denoise(x, t):
        return Gaussian(to_pixels(gain(spectral.alpha(t), spectral.sigma(t)) * to_spectrum(x)))

    def error(num):
        sampler, times = samplers.ancestral(process), timesteps.linear(num)
        chain = jax.jit(lambda x: samplers.solve(sampler, times, denoise, x, keys))
        rows = to_spectrum(chain(basis())).reshape(H * W, H * W) / np.sqrt(POWER.ravel())
        return np.abs(rows.T @ rows - np.eye(H * W)).max()  # of the whitened coefficients

    errors = error(100), error(200)
    assert (errors[1] < 0.05) == blurred, errors
    if blurred:
        assert 1.7 < errors[0] / errors[1] < 2.3, errors


def test_fresh_noise_ends_with_the_covariance_too(x64):
    """The variance of every coefficient through the steps of the posterior bridge; first order again."""

    def ends(num, power=POWER):
        times = timesteps.linear(num)
        toward_x_t, toward_x0, fresh = blurring(SHAPE, SCHEDULE, WIDTH).bridge(times[:-1], times[1:]).args[0]
        variance = np.ones(SHAPE)
        for n, t in enumerate(times[:-1]):
            slope = toward_x_t[n] + toward_x0[n] * gain(alphas(t), SCHEDULE.sigma(t))
            variance = slope**2 * variance + fresh[n]
        return np.abs(variance - power).max()

    errors = np.array([ends(num) for num in (200, 400, 800)])
    assert errors[-1] < 0.02, errors
    assert ((errors[:-1] / errors[1:] > 1.7) & (errors[:-1] / errors[1:] < 2.3)).all(), errors
    assert ends(800, 1.1 * POWER) > 0.05  # control


# ---- Kernels and estimates.


def test_the_kernel_is_a_normal_law_of_images(x64):
    """Its density is SciPy's of covariance V diag(var) V^T; whitened samples are white.

    Seed 0, 48,000 numbers: the mean square is within 5 of its standard errors, a false alarm in 10^6 runs.
    """
    mean, x = jax.random.normal(jax.random.key(0), (2, *SHAPE))
    kernel = Spectral(Gaussian(mean, jnp.asarray(POWER)))
    matrix = np.asarray(to_pixels(basis())).reshape(H * W, H * W)  # rows: V's columns
    covariance = matrix.T @ np.diag(POWER.ravel()) @ matrix
    want = scipy.stats.multivariate_normal.logpdf(np.ravel(x), np.ravel(kernel.mean), covariance)
    np.testing.assert_allclose(kernel.log_prob(x).sum(), want, rtol=1e-12)
    samples = jax.jit(jax.vmap(kernel.sample))(jax.random.split(jax.random.key(1), 4000))
    flat = np.asarray(samples - kernel.mean).reshape(-1, H * W)

    def deviation(covariance):
        white = flat @ np.linalg.cholesky(np.linalg.inv(covariance))
        return abs((white**2).mean() - 1) / (2 / white.size) ** 0.5

    assert deviation(covariance) < 5
    assert deviation(1.05 * covariance) > 5  # control


def test_the_estimates_variance_is_carried_to_every_coefficient(x64):
    """One for all pixels is carried exactly; of others, the diagonal of their covariance in the spectrum."""
    bridge = blurring(SHAPE, SCHEDULE, WIDTH).bridge(0.6, 0.3)
    x0, x_t = jax.random.normal(jax.random.key(0), (2, 2, *SHAPE))
    var = jax.random.uniform(jax.random.key(1), (2, *SHAPE))
    matrix = np.asarray(to_spectrum(basis())).reshape(H * W, H * W).T  # V^T
    known = bridge(Gaussian(x0), x_t).spectrum.var
    toward_x0 = bridge.args[0].x0
    for given in (0.5, jnp.array([0.5, 2.0])[:, None, None, None], var):
        kernel = bridge(Gaussian(x0, given), x_t)
        full = np.broadcast_to(given, var.shape).reshape(2, -1)
        want = np.stack([np.diag(matrix @ np.diag(v) @ matrix.T) for v in full]).reshape(var.shape)
        np.testing.assert_allclose(kernel.spectrum.var, known + toward_x0**2 * want, rtol=1e-12)
    isotropic = bridge(Gaussian(x0, 0.5), x_t).spectrum.var
    np.testing.assert_allclose(isotropic, known + toward_x0**2 * 0.5, rtol=1e-12)


def test_the_noise_in_pixels_tells_x0(x64):
    process = blurring((*SHAPE[:2], 3), SCHEDULE, WIDTH)
    parameterization = eps_in_pixels((*SHAPE[:2], 3), SCHEDULE, WIDTH, lambda t: 1000 * t)
    x0 = jax.random.normal(jax.random.key(0), (2, *SHAPE[:2], 3))
    t = jnp.array([0.3, 0.9])
    x_t, noise = jax.vmap(process.corrupt)(jax.random.split(jax.random.key(1), 2), x0, t)
    shown, time = parameterization.scale(x_t, t)
    np.testing.assert_array_equal(shown, x_t)
    np.testing.assert_allclose(time, [300, 900])
    target = parameterization.target(x0, noise, t)
    np.testing.assert_allclose(parameterization.read(target, x_t, t).mean, x0, atol=1e-10)
    for n in range(2):
        np.testing.assert_allclose(parameterization.read(target[n], x_t[n], float(t[n])).mean, x0[n], atol=1e-10)
    # Control: the noise of another example tells something else.
    assert np.abs(parameterization.read(target[::-1], x_t, t).mean - x0).max() > 0.1


def test_traced_times_and_grids_agree_and_nothing_is_nan():
    """Float32, gradients through a sample too, at both ends; s = 0 returns the estimate."""
    process = blurring(SHAPE, SCHEDULE, sin_squared(20.0))
    x0, x_t = jax.random.normal(jax.random.key(0), (2, 2, *SHAPE))
    keys = jax.random.split(jax.random.key(1), 2)
    times = timesteps.linear(3)
    grid = process.bridge(times[:-1], times[1:])
    for leaf in jax.tree.leaves(grid):
        assert leaf.dtype == np.float64
        assert leaf.shape == (3, H, W, 1)

    @jax.jit
    def drawn_and_slope(step, t, s):
        def total(x0):
            kernel = step(Gaussian(x0), x_t)
            traced = process.bridge(t, s)(Gaussian(x0), x_t)
            drawn = jax.vmap(lambda k, key: k.sample(key))(kernel, keys)
            return drawn.sum() + traced.mean.sum(), (drawn, kernel, traced)

        return jax.grad(total, has_aux=True)(x0)

    for n in range(3):
        step = jax.tree.map(lambda a, n=n: a[n], grid)
        slope, (drawn, kernel, traced) = drawn_and_slope(step, jnp.full(2, times[n]), jnp.full(2, times[n + 1]))
        assert np.isfinite(slope).all()
        assert np.isfinite(drawn).all()
        assert drawn.dtype == kernel.mean.dtype == jnp.float32
        np.testing.assert_allclose(traced.spectrum.mean, kernel.spectrum.mean, atol=1e-5)
        np.testing.assert_allclose(traced.spectrum.var, kernel.spectrum.var, atol=1e-5)
    np.testing.assert_allclose(kernel.mean, x0, atol=2e-6)
    np.testing.assert_allclose(drawn, x0, atol=2e-6)


def make(**arguments):
    return blurring(SHAPE, SCHEDULE, WIDTH, **arguments)


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (lambda: make(floor=0.0), "floor must lie in"),
        (lambda: make(floor=1.1), "floor must lie in"),
        (lambda: eps_in_pixels(SHAPE, SCHEDULE, WIDTH, lambda t: t, floor=0.0), "floor must lie in"),
        (lambda: make().bridge(0.5, 0.5), "0 <= s < t <= 1"),
        (lambda: make().bridge(1.1, 0.5), "0 <= s < t <= 1"),
        (lambda: make().corrupt(jax.random.key(0), jnp.zeros((4, 4, 1)), 0.5), "blurs images"),
    ],
)
def test_what_makes_no_sense_is_refused(bad, match):
    with pytest.raises(InputError, match=match):
        bad()
