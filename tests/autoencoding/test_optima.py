"""Linear autoencoders trained to their closed optima: double precision, L-BFGS, expectations that are exact.

The data has the covariance diag(VARIANCES): 2 D points, sqrt(D v_i) either way along axis i. An expectation over
normal noise of what is quadratic in it is a mean over the 2 k points +-sqrt(k) e_i.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from ml_collections import ConfigDict
from scipy.optimize import minimize

from diffusion_jax.autoencoding import bottlenecks, laws, objectives
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.training import optimizers

pytestmark = [pytest.mark.usefixtures("x64")]

VARIANCES = np.array([4.0, 2.0, 1.0, 0.5, 0.25])
D, K = len(VARIANCES), 2
SQUARED_ERROR = laws.gaussian(0.5)
LOG_PI = D / 2 * np.log(np.pi)  # of a normal law of variance 1/2, whose -log p is else the squared error


def points(scales):
    """+-sqrt(n) scales_i e_i, [2 n, n]: mean 0 and covariance diag(scales^2), exactly."""
    half = np.sqrt(len(scales)) * np.diag(scales)
    return np.concatenate([half, -half])


X = points(np.sqrt(VARIANCES))


def pairs(x, noise):
    """All pairs of a row of `x` and a row of `noise`."""
    return np.repeat(x, len(noise), axis=0), np.tile(noise, (len(x), 1))


def trained(loss, start, *data):
    """(the least value, where) of `loss(params, x)`, for each x of `data`: one program."""
    flat, back = ravel_pytree(start)
    slope = jax.jit(jax.value_and_grad(lambda flat, x: loss(back(flat), x)[0]))
    found = [
        minimize(
            lambda flat, x=x: tuple(map(np.asarray, slope(flat, x))),
            np.asarray(flat),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 2000, "gtol": 1e-8, "ftol": 1e-15, "maxcor": 30},
        )
        for x in data
    ]
    return [(each.fun, back(jnp.asarray(each.x))) for each in found]


def affine(codes=K, seed=0, **more):
    draw = np.random.default_rng(seed).normal
    return {
        "encoder": {"w": draw(size=(D, codes)) / 2, "b": np.zeros(codes)},
        "decoder": {"w": draw(size=(codes, D)) / 2, "b": np.zeros(D)},
        **more,
    }


def layer(part, x):
    return x @ part["w"] + part["b"]


def mean_loss(encode, weigh=objectives.ELBO, read=SQUARED_ERROR, bottleneck=bottlenecks.mean, weights=None):
    """`(params, x, step) -> (loss, info)`: the library's, of an encoder `(params, x) -> q` and an affine decoder."""
    code = coder(encode, bottleneck)
    loss = objectives.loss(code, lambda params, z: read(params, layer(params["decoder"], z)), weigh)

    def mean(params, x, step=0):
        keys = rng.per_example(rng.root(0), jnp.arange(len(x)))
        value, info = loss(keys, params, x, Context((), step))
        return jnp.average(value, weights=weights), {name: each.mean() for name, each in info.items()}

    return mean


def plain(params, x):
    return laws.certain(layer(params["encoder"], x))


# ---- Plain and denoising.


def test_a_plain_one_loses_the_trailing_variances():
    loss = mean_loss(plain)
    ((least, _),) = trained(loss, affine(), X)
    np.testing.assert_allclose(least - LOG_PI, VARIANCES[K:].sum(), atol=1e-6)


@pytest.mark.parametrize("codes", [K, D])
def test_a_denoising_one_is_wieners_filter_of_the_leading_variances(codes):
    sigma = 0.7
    x, noise = pairs(X, points(np.full(D, sigma)))
    loss = mean_loss(lambda params, x: plain(params, x + noise))
    ((least, _),) = trained(loss, affine(codes), x)
    kept = VARIANCES[:codes] * sigma**2 / (VARIANCES[:codes] + sigma**2)
    np.testing.assert_allclose(least - LOG_PI, kept.sum() + VARIANCES[codes:].sum(), atol=1e-6)
    assert least - LOG_PI > VARIANCES[codes:].sum() + 0.1  # control: what no noise would lose


def reduced_rank(x, rate, codes):
    """The least squared error of an affine map of `codes` codes from masked x to x."""
    covariance = np.cov(x.T, bias=True)
    shown = (1 - rate) ** 2 * covariance + rate * (1 - rate) * np.diag((x**2).mean(axis=0))
    both = (1 - rate) * covariance
    gains = np.linalg.eigvalsh(both @ np.linalg.solve(shown, both))[::-1]
    return np.trace(covariance) - gains[:codes].sum()


def test_a_masked_one_has_another_optimum_where_0_lies_elsewhere():
    rate = 0.25
    small = X / 8 + 0.3 * np.arange(D)  # of correlated, uncentred entries
    small = small @ (np.eye(D) + 0.3 * np.eye(D, k=1))
    bits = (np.arange(2**D)[:, None] >> np.arange(D)) & 1
    weights = np.tile(np.prod(np.where(bits, 1 - rate, rate), axis=1), len(small))

    data = small, small - small.mean(axis=0), 1 - small
    kept = np.tile(bits, (len(small), 1))
    loss = mean_loss(lambda params, x: plain(params, x * kept), weights=weights)
    found = [least - LOG_PI for least, _ in trained(loss, affine(), *(pairs(x, bits)[0] for x in data))]
    np.testing.assert_allclose(found, [reduced_rank(x, rate, K) for x in data], atol=1e-6)
    assert np.diff(sorted(found)).min() > 1e-3


# ---- Variational.

Z = points(np.ones(K))
CLEAN, NOISE = pairs(X, Z)


def cubature(params, keys, q):
    """`bottlenecks.sampled`, whose draws are the points `NOISE`."""
    return bottlenecks.sampled(params, keys, q)._replace(z=q.mean + q.std * NOISE)


def noisy(params, x):
    mean = layer(params["encoder"], x)
    return Gaussian(mean, jnp.broadcast_to(jnp.exp(params["encoder"]["log_var"]), mean.shape))


def variational(**more):
    start = affine(seed=1, **more)
    start["encoder"]["log_var"] = np.zeros(K)
    return start


def water(level):
    """(rate, squared error) of reverse water-filling: the directions above the level, at most `K`."""
    used = VARIANCES[:K] > level
    rate = 0.5 * np.log(VARIANCES[:K][used] / level).sum()
    return rate, np.where(used, level, VARIANCES[:K]).sum() + VARIANCES[K:].sum()


def test_a_linear_vae_is_probabilistic_pca_and_its_variance_the_error():
    read = laws.learned_gaussian(lambda params: params["noise"])
    loss = mean_loss(noisy, read=read, bottleneck=cubature)
    ((least, params),) = trained(loss, variational(noise=np.zeros(())), CLEAN)
    rest = VARIANCES[K:].mean()
    log_det = np.log(VARIANCES[:K]).sum() + (D - K) * np.log(rest)
    np.testing.assert_allclose(least, 0.5 * (D * np.log(2 * np.pi) + log_det + D), atol=1e-6)
    np.testing.assert_allclose(np.exp(params["noise"]), rest, rtol=1e-4)
    distortion = loss(params, CLEAN)[1]["distortion"]
    np.testing.assert_allclose(distortion, D / 2 * (np.log(2 * np.pi * rest) + 1), atol=1e-4)


def of_weight(weight, var):
    """(rate, squared error) where a weighed rate is least."""
    loss = mean_loss(noisy, objectives.beta(weight), laws.gaussian(var), cubature)
    ((_, params),) = trained(loss, variational(), CLEAN)
    info = loss(params, CLEAN)[1]
    return float(info["rate"]), float(2 * var * (info["distortion"] - D / 2 * np.log(2 * np.pi * var)))


def test_a_weighed_rate_is_reverse_water_filling():
    # Both directions; both again, of another weight; one direction; none, for its variance is below the level.
    for weight, var in ((1.0, 0.5), (4.0, 0.2), (10.0, 0.25), (10.0, 0.5)):
        np.testing.assert_allclose(of_weight(weight, var), water(weight * var), atol=2e-4)
    # Control: a rate averaged over the codes is a weight of 1 / K.
    assert abs(of_weight(1 / K, 0.5)[0] - water(0.5)[0]) > 0.5


def test_a_capacity_is_the_rate_and_leaves_the_error_of_water_filling():
    """Plain gradient descent with a falling rate; the statistic's optimiser keeps the last batch's mean."""
    capacity, steps = 1.0, 5000
    weigh = objectives.capacity(capacity, 1, 100.0, lambda params: params["statistics"])
    loss = mean_loss(noisy, weigh, laws.gaussian(0.05), cubature)

    def falling(train):
        return optimizers.Optimizer(optax.adam(optax.cosine_decay_schedule(0.01, steps)))

    made = optimizers.by_part(falling, statistics=optimizers.moving(0.0))(ConfigDict()).transformation

    def update(carry, step):
        params, state = carry
        slope, info = jax.grad(loss, has_aux=True)(params, jnp.asarray(CLEAN), step)
        updates, state = made.update(slope, state, params)
        return (optax.apply_updates(params, updates), state), info["rate"]

    start = jax.tree.map(jnp.asarray, variational(statistics=np.zeros(())))
    (params, _), rates = jax.jit(lambda start: jax.lax.scan(update, (start, made.init(start)), jnp.arange(steps)))(
        start
    )
    np.testing.assert_allclose(rates[-1], capacity, atol=0.01)
    np.testing.assert_allclose(params["statistics"], rates[-1], atol=1e-6)
    level = np.sqrt(VARIANCES[0] * VARIANCES[1]) * np.exp(-capacity)  # below both variances
    info = loss(params, CLEAN)[1]
    error = 0.1 * (info["distortion"] - D / 2 * np.log(0.1 * np.pi))
    np.testing.assert_allclose((capacity, error), water(level), atol=0.02)
