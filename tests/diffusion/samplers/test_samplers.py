"""The law of a chain whose denoiser is exact: Gaussian data has one in closed form."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Gaussian, draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import guidance, parameterizations, processes, samplers, schedules, timesteps, variances

pytestmark = pytest.mark.slow

T = 1000
SCHEDULE = schedules.from_betas(schedules.linear_betas(T))
MEAN, VAR = 0.3, 0.25


def exact(x, t, schedule=SCHEDULE):
    """p(x0 | x_t) of data x0 ~ N(MEAN, VAR)."""
    alpha, sigma = schedule.alpha(t), schedule.sigma(t)
    gain = alpha * VAR / (alpha**2 * VAR + sigma**2)
    return Gaussian(MEAN + gain * (x - alpha * MEAN), VAR * sigma**2 / (alpha**2 * VAR + sigma**2))


def law(refresh, times, variance):
    """Mean and variance of x at the grid's end, by the affine recursion of the chain, exactly.

    Each kernel is normal with a mean that is affine in x_t; the chain starts at N(0, 1).
    """
    mean, var = 0.0, 1.0
    process = processes.gaussian(SCHEDULE, refresh)
    for t, s in itertools.pairwise(times):
        coefficient = process.bridge(t, s).args[0]
        at_0, at_1 = exact(0.0, t).mean, exact(1.0, t).mean
        slope = coefficient.x_t + coefficient.x0 * (at_1 - at_0)
        fresh = coefficient.var + coefficient.x0**2 * variance(t)
        mean = slope * mean + coefficient.x0 * at_0
        var = slope**2 * var + (fresh if s > 0 else 0.0)
    return mean, var


def run(sampler, times, denoise, num=20_000, seed=0):
    keys = jax.random.split(jax.random.key(seed), num)
    x = jax.vmap(lambda key: jax.random.normal(key, (1,)))(jax.random.split(jax.random.key(seed + 1), num))
    return jax.jit(lambda x: samplers.solve(sampler, times, denoise, x, keys))(x)


def point(x, t):
    return exact(x, t)._replace(var=0.0)


def test_the_whole_ddpm_chain_has_the_law_of_the_data():
    """Seed 0, 20,000 draws; bounds of 4.9 standard errors: a false alarm in 10^6.

    With beta_t the chain's variance is a little too large, with the posterior variance a little too small.
    That bias is known exactly, and is bounded first.
    """
    num, times = 20_000, timesteps.uniform(T, T)
    sampler = samplers.ancestral(processes.gaussian(SCHEDULE))
    large = variances.fixed_large(SCHEDULE)(point)
    for denoise, variance in [(point, lambda t: 0.0), (large, lambda t: SCHEDULE.sigma(t) ** 2)]:
        mean, var = law(processes.ddim(1.0), times, variance)
        assert abs(mean - MEAN) < 0.01
        assert abs(var / VAR - 1) < 0.05
        x = run(sampler, times, denoise, num)
        assert abs(x.mean() - mean) < 4.9 * (var / num) ** 0.5
        assert abs(x.var() / var - 1) < 4.9 * (2 / num) ** 0.5
    # Control: ten steps of the posterior variance have another law, which the same bound tells apart.
    x = run(sampler, timesteps.uniform(10, T), point, num)
    assert abs(x.var() / VAR - 1) > 4.9 * (2 / num) ** 0.5


def test_an_exact_posterior_samples_exactly_at_any_stride():
    """With the estimate's true variance five steps suffice (seed 0, 20,000 draws, 4.9 s.e.)."""
    num, times = 20_000, timesteps.uniform(5, T)
    for refresh in (processes.ddim(1.0), processes.renoise):
        x = run(samplers.ancestral(processes.gaussian(SCHEDULE, refresh), end=draw), times, exact, num)
        # The chain starts at N(0, 1) where q(x_1) is N(alpha_1 MEAN, ...): a bias of order alpha_1 = 0.006.
        assert abs(x.mean() - MEAN) < 4.9 * (VAR / num) ** 0.5 + SCHEDULE.alpha(1.0)
        assert abs(x.var() / VAR - 1) < 4.9 * (2 / num) ** 0.5 + SCHEDULE.alpha(1.0)


def test_ddim_converges_at_first_order(x64):
    """DDIM(0) is a first-order solver of the probability-flow ODE, whose flow is affine here."""
    x = jnp.array([[1.3], [-0.4]])
    t_0 = 0.8
    alpha, sigma = SCHEDULE.alpha(t_0), SCHEDULE.sigma(t_0)
    truth = MEAN + (x - alpha * MEAN) * np.sqrt(VAR / (alpha**2 * VAR + sigma**2))
    sampler = samplers.ancestral(processes.gaussian(SCHEDULE, processes.ddim(0.0)))
    errors = []
    for steps in (50, 100, 200, 400, 800):
        times = np.rint(np.linspace(800, 0, steps + 1)) / T
        out = samplers.solve(sampler, times, point, x, jax.random.split(jax.random.key(0), 2))
        errors.append(float(jnp.abs(out - truth).max()))
    orders = np.log2(np.array(errors[:-1]) / np.array(errors[1:]))
    assert ((orders > 0.8) & (orders < 1.2)).all(), (errors, orders)


def test_a_film_is_the_same_chain_and_keeps_only_its_frames():
    sampler = samplers.ancestral(processes.gaussian(SCHEDULE))
    keys = jax.random.split(jax.random.key(0), 3)
    x = jnp.ones((3, 2))
    times = timesteps.uniform(20, T)
    out, pictures = samplers.film(sampler, times, point, x, keys, frames=6)
    assert pictures.shape == (7, 3, 2)
    np.testing.assert_array_equal(pictures[0], x)
    np.testing.assert_array_equal(pictures[-1], out)
    np.testing.assert_allclose(out, samplers.solve(sampler, times, point, x, keys), rtol=1e-6)
    # Every frame is where the shortened walk would have arrived.
    ends = np.floor(np.arange(1, 7) * 20 / 6).astype(int)
    for frame, end in zip(pictures[1:], ends, strict=True):
        walked = samplers.solve(sampler, times[: end + 1], point, x, keys)
        np.testing.assert_allclose(frame, walked, rtol=1e-5, atol=1e-6)


def sample_fn(batch, transforms=(), steps=10, run=samplers.solve):
    """A sampler of a network that is exact for the data above, with `params` as its bias."""

    def apply(params, x, time):
        t = (time + 1) / T
        estimate = exact(x, t.reshape(-1, 1, 1, 1))
        alpha, sigma = (f(t).reshape(-1, 1, 1, 1) for f in SCHEDULE)
        return (x - alpha * estimate.mean) / sigma + params

    return samplers.make_sample_fn(
        apply,
        parameterizations.eps(SCHEDULE, parameterizations.table_index(T)),
        processes.gaussian(SCHEDULE),
        samplers.ancestral(processes.gaussian(SCHEDULE)),
        timesteps.uniform(steps, T),
        batch,
        (4, 6, 1),
        transforms,
        run,
    )


def test_an_image_does_not_change_with_the_batch_size():
    few = sample_fn(3)(0.0, jax.random.key(5))
    many = sample_fn(8)(0.0, jax.random.key(5))
    np.testing.assert_allclose(few, many[:3], atol=1e-5)
    assert float(jnp.abs(many[0] - many[1]).max()) > 0.1


def test_sample_fn_composes_with_jit_vmap_and_grad():
    fn = sample_fn(2)
    rng = jax.random.key(0)
    plain = fn(0.0, rng)
    np.testing.assert_allclose(jax.jit(fn)(0.0, rng), plain, atol=1e-5)
    over_keys = jax.vmap(fn, (None, 0))(0.0, jnp.stack([rng, jax.random.key(1)]))
    np.testing.assert_allclose(over_keys[0], plain, atol=1e-5)
    gradient = jax.grad(lambda bias: fn(bias, rng).mean())(0.0)
    difference = (fn(0.01, rng).mean() - fn(-0.01, rng).mean()) / 0.02
    np.testing.assert_allclose(gradient, difference, rtol=1e-2)


def test_sample_fn_takes_a_legacy_key_and_one_key_an_image():
    fn = sample_fn(2)
    np.testing.assert_array_equal(fn(0.0, jax.random.PRNGKey(3)), fn(0.0, jax.random.key(3)))
    keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(3), jnp.arange(2))
    np.testing.assert_array_equal(fn(0.0, keys), fn(0.0, jax.random.key(3)))
    with pytest.raises(InputError, match="one for each"):
        fn(0.0, jax.random.split(jax.random.key(0), 5))


def test_clipping_bounds_the_images():
    far = sample_fn(4)(-5.0, jax.random.key(0))
    near = sample_fn(4, [guidance.clip()])(-5.0, jax.random.key(0))
    assert float(jnp.abs(far).max()) > 1.5
    assert float(jnp.abs(near).max()) <= 1 + 1e-6


def test_sample_fn_can_keep_the_pictures_on_the_way():
    images, pictures = sample_fn(2, run=functools.partial(samplers.film, frames=5))(0.0, jax.random.key(0))
    assert pictures.shape == (6, 2, 4, 6, 1)
    np.testing.assert_array_equal(images, pictures[-1])


def test_the_program_does_not_grow_with_the_number_of_steps():
    def size(steps):
        return len(str(jax.make_jaxpr(sample_fn(2, steps=steps))(0.0, jax.random.key(0))))

    assert size(1000) < 1.05 * size(10)


@pytest.mark.parametrize("times", [[1.0], [0.5, 0.5], [0.2, 0.4], [1.2, 0.5], [0.5, -0.1]])
def test_a_grid_that_does_not_fall_is_refused(times):
    with pytest.raises(InputError, match="grid"):
        samplers.solve(samplers.ancestral(processes.gaussian(SCHEDULE)), times, point, jnp.ones((1, 1)), None)


@pytest.mark.parametrize("steps", [0, 1001])
def test_more_steps_than_the_table_has_are_refused(steps):
    for grid in (timesteps.uniform, timesteps.leading):
        with pytest.raises(InputError, match="steps"):
            grid(steps, T)


def test_a_reporting_sampler_draws_the_same_and_tells_how_far_it_is():
    told = []
    sampler = samplers.ancestral(processes.gaussian(SCHEDULE))
    keys, x, times = jax.random.split(jax.random.key(0), 2), jnp.ones((2, 3)), timesteps.uniform(25, T)
    quiet = jax.jit(lambda x: samplers.solve(sampler, times, point, x, keys))(x)
    loud = samplers.reporting(sampler, lambda share: told.append(float(share)), every=10)
    aloud = jax.jit(lambda x: samplers.solve(loud, times, point, x, keys))(x)
    jax.effects_barrier()
    np.testing.assert_allclose(aloud, quiet, atol=1e-6)  # another program, so equal to rounding
    np.testing.assert_allclose(sorted(told), [0.4, 0.8, 1.0])
