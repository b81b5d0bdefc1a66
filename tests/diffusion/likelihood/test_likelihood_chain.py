"""The bound of a Gaussian chain against closed forms.

The terms are quadratic in x0 = m +- s and the noise +-1, so the mean over these four points, which are entries of one
example, is the expectation over normal x0 and noise exactly.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from diffusion_jax.core.distributions import Gaussian, Interpolated
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import (
    gaussian,
    guidance,
    likelihood,
    losses_bound,
    parameterizations,
    processes,
    schedules,
    timesteps,
    variances,
)
from diffusion_jax.diffusion.likelihood import at_variance, chain_bound, density_term, make_bound_fn
from diffusion_jax.methods import likelihoods

pytestmark = pytest.mark.slow

T = 1000
BETAS = schedules.linear_betas(T)
SCHEDULE = schedules.from_betas(BETAS)
PROCESS = processes.gaussian(SCHEDULE)
ALPHA_BAR = np.append(1.0, np.cumprod(1 - BETAS))
GRID = timesteps.uniform(T, T)
SIGNS = np.array([[1, 1, -1, -1], [1, -1, 1, -1]])  # of x0 and of the noise
ENTROPY = 0.5 * np.log2(2 * np.pi * np.e)  # of N(0, 1)
KEY = jax.random.split(jax.random.key(0), 1)


def given_noise(noise, process=PROCESS, schedule=SCHEDULE):
    """`process` with this noise at every step."""
    return process._replace(corrupt=lambda key, x0, t: (gaussian.q_sample(schedule, x0, t, noise), noise))


def linear(gain):
    """x0_hat = gain(t) x_t."""
    return lambda x, t: Gaussian(gain(t) * x)


def expected(denoise, times, var=1.0, decoder=density_term, process=PROCESS):
    """The bound of data N(0, var)."""
    x0 = jnp.asarray(np.sqrt(var) * SIGNS[:1])
    noised = given_noise(jnp.asarray(SIGNS[1]), process)
    return jax.jit(lambda: chain_bound(denoise, SCHEDULE, noised, times, x0, KEY, decoder))()


def exact_gain(var):
    return lambda t: SCHEDULE.alpha(t) * var / (SCHEDULE.alpha(t) ** 2 * var + SCHEDULE.sigma(t) ** 2)


def test_bound_of_a_standard_normal_with_the_exact_eps(x64):
    """Bound minus entropy: 0 with beta_t, and 0.465 nats with the posterior variance, if both decode with beta_1.

    With DDPM's own decoder, of the second posterior variance, it is KL(N(0, beta_1) || N(0, that)) more.
    """
    first = float(SCHEDULE.sigma(1 / T) ** 2)
    second = likelihood.second_variance(SCHEDULE, GRID)
    np.testing.assert_allclose(second, 5.45319e-5, rtol=1e-6)
    more = 0.5 * (first / second - 1 - np.log(first / second)) / np.log(2)
    denoise = linear(SCHEDULE.alpha)
    for transform, gap in ((variances.fixed_large, 0.0), (variances.posterior, 0.465 / np.log(2))):
        transformed = transform(SCHEDULE)(denoise)
        tolerance = 5e-4 if gap else 1e-11
        decoded = at_variance(first, density_term)
        bound = expected(transformed, GRID, decoder=decoded)
        np.testing.assert_allclose(bound.total - ENTROPY, gap, atol=tolerance)
        published = expected(transformed, GRID, decoder=at_variance(second, density_term))
        np.testing.assert_allclose(published.total - bound.total, more, rtol=1e-9)
    # A variance of 0 in the last step becomes the second one by itself; beta_1 stays.
    np.testing.assert_allclose(expected(transformed, GRID).total, published.total, rtol=1e-12)
    large = variances.fixed_large(SCHEDULE)(denoise)
    np.testing.assert_allclose(expected(large, GRID).total, ENTROPY, atol=1e-11)


@pytest.mark.parametrize("times", [GRID, timesteps.respaced(7, T)], ids=["whole", "respaced"])
def test_every_term_of_a_linear_gaussian_model_has_its_closed_form(x64, times):
    """Independent entries of different variances, any linear denoiser, any learned fractions; from betas alone."""
    var, fraction = np.array([0.04, 0.5, 2.0]), np.array([0.0, 0.37, 1.2])
    narrowest = 3e-5

    def gain(t):
        return 0.9 * exact_gain(var)(t) + 0.01

    def denoise(x, t):
        widest = SCHEDULE.sigma(t) ** 2 * jnp.ones(3)
        return Interpolated(gain(t) * x, jnp.broadcast_to(fraction, x.shape), widest, narrowest)

    x0 = jnp.asarray(SIGNS[0][None, :, None] * np.sqrt(var))
    noise = jnp.asarray(SIGNS[1][:, None] * np.ones(3))
    bound = jax.jit(lambda: chain_bound(denoise, SCHEDULE, given_noise(noise), times, x0, KEY, density_term))()

    at = ALPHA_BAR[np.rint(times * T).astype(int)][:, None]
    at, before = at[:-1], at[1:]
    beta = 1 - at / before
    posterior = beta * (1 - before) / (1 - at)
    learned = np.exp(fraction * np.log(beta) + (1 - fraction) * np.log(np.maximum(posterior, narrowest)))
    k = 0.9 * np.sqrt(at) * var / (at * var + 1 - at) + 0.01
    error = (1 - k * np.sqrt(at)) ** 2 * var + k**2 * (1 - at)
    toward = np.sqrt(before) * beta / (1 - at)
    with np.errstate(divide="ignore"):
        terms = 0.5 * (posterior / learned - 1 - np.log(posterior / learned) + toward**2 * error / learned)
    decoder = 0.5 * (np.log(2 * np.pi * learned) + error / learned)[-1]
    prior = 0.5 * (at[0] * var - at[0] - np.log(1 - at[0]))

    def bits(nats):
        return nats.mean(-1) / np.log(2)

    np.testing.assert_allclose(bound.prior[0], bits(prior), rtol=1e-9)
    np.testing.assert_allclose(bound.terms[0], bits(terms[:-1]), rtol=1e-7)
    np.testing.assert_allclose(bound.decoder[0], bits(decoder), rtol=1e-9)
    np.testing.assert_allclose(bound.mse_x0[0], error.mean(-1), rtol=1e-9)
    np.testing.assert_allclose(bound.mse_eps[0], (at / (1 - at) * error).mean(-1), rtol=1e-9)
    # What is made of the parts.
    np.testing.assert_allclose(bound.rate, bits(prior) + bits(terms[:-1]).sum(), rtol=1e-8)
    np.testing.assert_allclose(bound.total, bound.rate + bound.distortion)
    np.testing.assert_allclose(bound.received[0], bits(prior) + np.append(0, np.cumsum(bits(terms[:-1]))), rtol=1e-8)
    np.testing.assert_allclose(bound.rmse[0], 127.5 * np.sqrt(error[-1].mean()), rtol=1e-9)


def test_a_shorter_chain_with_a_learned_variance_decodes_as_a_table_of_its_own(x64):
    """As Improved DDPM's code: its betas are those of the shorter table, and so is the second posterior variance.

    A network that always says the same x0, and the least variance: what is decoded with is that variance alone.
    """
    num, said = 25, 0.1
    x0 = said + np.array([[-0.02, 0.0, 0.013]])

    def apply(params, x, time):
        t = (time[:, None] + 1) / T
        eps = (x - SCHEDULE.alpha(t) * said) / SCHEDULE.sigma(t)
        return jnp.concatenate([eps, -jnp.ones_like(x)], axis=-1)

    eps = parameterizations.eps(SCHEDULE, parameterizations.table_index(T))
    trained = likelihood.second_variance(SCHEDULE, timesteps.uniform(T, T))
    learned = parameterizations.learned_range(eps, SCHEDULE, trained)

    def decoded(make):
        return float(make(apply, learned, num)(None, KEY, jnp.asarray(x0)).decoder[0])

    def by_hand(variance):
        edges = (x0 + np.array([[1], [-1]]) / 255 - said) / np.sqrt(variance)
        return -np.log2(np.diff(ndtr(edges[::-1]), axis=0)).mean()

    first, second = ALPHA_BAR[np.rint(timesteps.respaced(num, T)[[-2, -3]] * T).astype(int)]
    own = (1 - second / first) * (1 - first) / (1 - second)
    np.testing.assert_allclose(decoded(likelihoods.learned_chain(SCHEDULE, T, ())), by_hand(own), rtol=1e-6)
    as_trained = likelihoods.learned_chain(SCHEDULE, T, (), likelihoods.of_table(T))
    np.testing.assert_allclose(decoded(as_trained), by_hand(trained), rtol=1e-6)
    assert own > 1.1 * trained  # control: they are two numbers


def test_the_exact_kernel_loses_nothing_at_any_stride(x64):
    """Data N(0, var): bound = entropy + KL(q(x_1) || prior), whatever the grid, if the estimate's variance is exact.

    No other variance reaches the entropy, and with beta_t fewer steps cost more.
    """
    var = 0.3
    entropy = ENTROPY + 0.5 * np.log2(var)

    def exact(x, t):
        total = SCHEDULE.alpha(t) ** 2 * var + SCHEDULE.sigma(t) ** 2
        return Gaussian(exact_gain(var)(t) * x, var * SCHEDULE.sigma(t) ** 2 / total)

    for times in (timesteps.uniform(2, T), timesteps.leading(10, T)):
        one = SCHEDULE.alpha(times[0]) ** 2 * var + SCHEDULE.sigma(times[0]) ** 2
        gap = 0.5 * (one - 1 - np.log(one)) / np.log(2)
        np.testing.assert_allclose(expected(exact, times, var).total, entropy + gap, rtol=1e-9)
    large, small = (f(SCHEDULE)(linear(exact_gain(var))) for f in (variances.fixed_large, variances.posterior))
    totals = [float(expected(large, timesteps.uniform(num, T), var).total[0]) for num in (T, 50, 10)]
    assert totals[0] > entropy
    assert (np.diff(totals) > 0.004).all(), totals
    assert expected(small, timesteps.uniform(10, T), var).total > entropy + 0.1


def test_learned_variances_cost_what_the_loss_says(x64):
    """Term by term `losses_bound.bound` on the same noise, for images and a network of eps and v."""
    num = 12
    schedule = schedules.from_betas(schedules.cosine_betas(num))
    process, times = processes.gaussian(schedule), timesteps.uniform(num, num)
    eps = parameterizations.eps(schedule, parameterizations.table_index(num))
    learned = parameterizations.learned_range(eps, schedule, likelihood.second_variance(schedule, times))
    x0 = jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, 4, 2)) / 127.5 - 1)
    noise = jax.random.normal(jax.random.key(0), (4, 2))
    process = given_noise(noise, process, schedule)

    def apply(params, x, time):
        return jnp.concatenate([params * x, jnp.sin(3 * x + time[:, None, None])], axis=-1)

    keys = jax.random.split(jax.random.key(1), 3)
    bound = jax.jit(make_bound_fn(apply, learned, process, schedule, times))(0.9, keys, x0)
    criterion = losses_bound.bound(learned, process, num)

    @jax.jit
    def term(t):
        x_t = gaussian.q_sample(schedule, x0, t, noise)
        return criterion(apply(0.9, *learned.scale(x_t, t)), x0, None, x_t, t) / num

    for n, t in enumerate(times[:-1]):
        want = term(jnp.full(3, t))
        got = bound.decoder if n == num - 1 else bound.terms[:, n]
        np.testing.assert_allclose(got, want, rtol=1e-7)


def test_kernels_that_are_not_ddpms_are_bounded_by_its_forward_process(x64):
    """DDIM's, with less noise than the posterior they are held against."""
    denoise, times = linear(exact_gain(0.3)), timesteps.uniform(5, T)
    process = processes.gaussian(SCHEDULE, processes.ddim(0.5))
    bound = expected(denoise, times, 0.3, process=process)
    x0, noise = jnp.asarray(np.sqrt(0.3) * SIGNS[:1]), jnp.asarray(SIGNS[1:])
    for n in range(4):
        t, s = times[n], times[n + 1]
        x_t = gaussian.q_sample(SCHEDULE, x0, t, noise)
        kernel = process.bridge(t, s)(denoise(x_t, t), x_t)
        want = likelihood.transition_term(SCHEDULE, x0, x_t, kernel, t, s).mean() / np.log(2)
        np.testing.assert_allclose(bound.terms[0, n], want, rtol=1e-9)
    full = processes.gaussian(SCHEDULE, processes.ddim(1.0))
    ours = expected(denoise, times, 0.3)
    np.testing.assert_allclose(expected(denoise, times, 0.3, process=full).total, ours.total, rtol=1e-9)
    assert bound.total > ours.total + 0.1


# ---- With its own noise.


SHORT = schedules.from_betas(schedules.cosine_betas(20))
SHORT_GRID = timesteps.uniform(20, 20)


def network(params, x, time, cond=None):
    shift = 0.0 if cond is None else cond["label"][:, None]
    return params * x + shift + 0.01 * time[:, None]


@pytest.fixture(scope="module")
def bound_fn():
    eps = parameterizations.eps(SHORT, parameterizations.table_index(20))
    transforms = [guidance.clip(), variances.fixed_large(SHORT)]
    return jax.jit(make_bound_fn(network, eps, processes.gaussian(SHORT), SHORT, SHORT_GRID, transforms))


def test_its_mean_over_data_and_noise_is_the_entropy():
    """Data N(0, 1) [4096, 4], seed 0, float32: within 4.5 standard errors, a false alarm in 150,000."""
    x0 = jax.random.normal(jax.random.key(0), (4096, 4))
    keys = jax.random.split(jax.random.key(1), 4096)

    def gap(transform):
        denoise = transform(SHORT)(linear(SHORT.alpha))
        total = jax.jit(
            lambda: chain_bound(denoise, SHORT, processes.gaussian(SHORT), SHORT_GRID, x0, keys, density_term).total
        )()
        return (total.mean() - ENTROPY) / (total.std() / 64)

    assert abs(gap(variances.fixed_large)) < 4.5
    assert gap(variances.posterior) > 9  # control: another variance is no entropy


def test_every_step_has_noise_of_its_own():
    """Entry n of example i is drawn with fold_in(keys[i], n + 1)."""
    keys = jax.random.split(jax.random.key(0), 3)
    process = processes.gaussian(SHORT)._replace(corrupt=lambda key, x0, t: (jax.random.normal(key, x0.shape), None))
    x0, denoise = jnp.zeros((3, 1)), lambda x, t: Gaussian(x)
    bound_fn = jax.jit(lambda: chain_bound(denoise, SHORT, process, SHORT_GRID, x0, keys))
    drawn = [[jax.random.normal(jax.random.fold_in(key, n), (1,))[0] for n in range(1, 21)] for key in keys]
    np.testing.assert_allclose(bound_fn().mse_x0, np.square(drawn), rtol=1e-5)


def test_a_bound_does_not_depend_on_the_batch_or_on_devices(bound_fn):
    """Eight examples on one device, and two on each of four."""
    x0 = jax.random.normal(jax.random.key(0), (8, 5)).clip(-1, 1)
    keys = jax.random.split(jax.random.key(1), 8)
    whole = bound_fn(0.5, keys, x0)
    assert whole.total.shape == (8,)
    assert whole.terms.shape == (8, 19)
    spread = jax.pmap(bound_fn, in_axes=(None, 0, 0))(0.5, keys.reshape(4, 2), x0.reshape(4, 2, 5))
    for name in ("total", "rate", "received", "rmse", "mse_eps"):
        value = np.asarray(getattr(whole, name))
        np.testing.assert_allclose(np.asarray(getattr(spread, name)).reshape(value.shape), value, rtol=2e-6)
    again = bound_fn(0.5, jax.random.split(jax.random.key(2), 8), x0)
    assert (np.asarray(again.terms) != np.asarray(whole.terms)).mean() > 0.9  # the noise is the keys'


def test_a_condition_reaches_the_network(bound_fn):
    x0, keys = jnp.full((8, 5), 0.2), jax.random.split(jax.random.key(0), 8)
    untold, told = bound_fn(0.5, keys, x0), bound_fn(0.5, keys, x0, {"label": jnp.arange(8) / 4})
    np.testing.assert_allclose(told.total[0], untold.total[0], rtol=1e-6)
    assert (np.abs(told.total - untold.total)[1:] > 1e-3).all()


def test_the_program_does_not_grow_with_the_steps():
    calls, sizes = [], []
    for num in (10, T):

        def denoise(x, t):
            calls.append(1)
            return Gaussian(0.5 * x)

        times = timesteps.uniform(num, T)
        program = jax.make_jaxpr(lambda x0, t=times: chain_bound(denoise, SCHEDULE, PROCESS, t, x0, KEY))(
            jnp.zeros((1, 3))
        )
        sizes.append(len(str(program)))
        calls.append(0)
    assert calls == [1, 0] * 2
    assert abs(sizes[1] - sizes[0]) < 0.05 * sizes[0]


def test_bad_input_is_named(bound_fn):
    x0, keys = jnp.zeros((2, 5)), jax.random.split(jax.random.key(0), 2)
    with pytest.raises(InputError, match="ends at 0"):
        chain_bound(linear(SHORT.alpha), SHORT, PROCESS, SHORT_GRID[:-1], x0, keys)
    with pytest.raises(InputError, match="at least 2 steps"):
        chain_bound(linear(SHORT.alpha), SHORT, PROCESS, [1.0, 0.0], x0, keys)
    with pytest.raises(InputError, match="uint8"):
        bound_fn(0.5, keys, x0.astype(jnp.uint8))
    with pytest.raises(InputError, match=r"one key an example, \[2\], not \[\]"):
        bound_fn(0.5, keys[0], x0)
