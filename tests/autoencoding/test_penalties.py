"""Sparse and contractive codes: gradients that no split of a batch changes, and the Frobenius norm of a Jacobian."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from diffusion_jax.autoencoding import penalties
from diffusion_jax.autoencoding.codes import Code
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.training import optimizers

B, D, K = 128, 6, 3
RHO, WEIGHT = 0.05, 3.0
X = np.random.default_rng(0).normal(size=(B, D))
W = np.random.default_rng(1).normal(size=(D, K))
KEYS = rng.per_example(rng.root(0), jnp.arange(B))


def sigmoids(params, x):
    return Gaussian(jax.nn.sigmoid(x @ params["encoder"] + 0.3))


def code_of(z):
    return Code(z, None, None, z)


def moving(params):
    return params["statistics"]


def divergence(params, x):
    """sum_j KL(rho || rho_j) of the batch, as it is written."""
    mean = sigmoids(params, x).mean.mean(axis=0)
    return WEIGHT * jnp.sum(RHO * jnp.log(RHO / mean) + (1 - RHO) * jnp.log((1 - RHO) / (1 - mean)))


def in_shards(loss, params, shards):
    """The mean over shards of the value and the gradient of a share's loss."""
    slopes = jax.vmap(jax.value_and_grad(loss), (None, 0))
    return jax.tree.map(lambda x: np.asarray(x).mean(axis=0), jax.jit(slopes)(params, X.reshape(shards, -1, D)))


@pytest.mark.usefixtures("x64")
def test_sparsity_has_one_gradient_in_1_8_and_128_shards():
    params = {"encoder": jnp.asarray(W)}
    mean = (1 / (1 + np.exp(-(X @ W + 0.3)))).mean(axis=0)
    value, slope = jax.jit(jax.value_and_grad(divergence))(params, X)
    penalty = penalties.sparsity(RHO, WEIGHT, moving)

    def loss(params, x):
        return penalty(params, None, x, code_of(sigmoids(params, x).mean), None).mean()

    for shards in (1, 8, 128):
        found, slopes = in_shards(loss, params | {"statistics": mean}, shards)
        np.testing.assert_allclose(found, value, rtol=1e-12)
        np.testing.assert_allclose(slopes["encoder"], slope["encoder"], rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(slopes["statistics"], mean, rtol=1e-12)  # what the moving mean moves to
    # Control: the divergence of each share has another gradient.
    _, shared = in_shards(divergence, params, 8)
    assert np.abs(shared["encoder"] - slope["encoder"]).max() > 1e-3 * np.abs(slope["encoder"]).max()


@pytest.mark.usefixtures("x64")
def test_sparsity_at_another_mean_is_a_tangent_below_the_divergence():
    params = {"encoder": jnp.asarray(W)}
    penalty = penalties.sparsity(RHO, WEIGHT, moving)

    @jax.jit
    def tangent(statistic):
        return penalty(params | {"statistics": statistic}, None, X, code_of(sigmoids(params, X).mean), None).mean()

    for statistic in (0.02, 0.2, 0.9):
        assert tangent(np.full(K, statistic)) < divergence(params, X)
    for statistic in (0.0, 1.0):  # units that are never or always on
        assert np.isfinite(tangent(np.full(K, statistic)))


def test_a_moving_average_follows_gradients_whatever_they_are_clipped_to():
    rates = {"learning_rate": 0.1, "final_rate": 0.0, "warmup_steps": 0, "decay_steps": 0}
    train = ConfigDict({**rates, "clip_norm": 1e-3})
    made = optimizers.by_part(optimizers.adam, statistics=optimizers.moving(0.9))(train)
    params = {"encoder": jnp.ones(3), "statistics": {"mean": jnp.full(2, 4.0), "rate": jnp.zeros(())}}
    state = made.transformation.init(params)
    seen = {"mean": jnp.asarray([1.0, 100.0]), "rate": jnp.asarray(-2.0)}
    updates, _ = made.transformation.update({"encoder": jnp.ones(3), "statistics": seen}, state, params)
    np.testing.assert_allclose(updates["statistics"]["mean"] + 4.0, [0.9 * 4 + 0.1, 0.9 * 4 + 10], rtol=1e-6)
    np.testing.assert_allclose(updates["statistics"]["rate"], -0.2, rtol=1e-6)
    np.testing.assert_allclose(updates["encoder"], -0.1, rtol=1e-4)  # Adam's first step
    assert set(made.rates) == {"learning_rate"}


@pytest.mark.usefixtures("x64")
def test_the_closed_form_of_a_contraction_is_its_jacobian():
    params = {"encoder": jnp.asarray(W)}
    jacobians = jax.jit(jax.vmap(jax.jacfwd(lambda x: sigmoids(params, x).mean)))(X)
    penalty = penalties.sigmoid_contraction(2.0, lambda params: params["encoder"])
    found = penalty(params, KEYS, X, code_of(sigmoids(params, X).mean), None)
    np.testing.assert_allclose(found, 2 * (jacobians**2).sum((1, 2)), rtol=1e-12)


DRAWS = 20_000


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("way", ["forward", "backward"])
def test_estimates_of_a_contraction_have_its_mean_and_hutchinsons_variance(way):
    """Seed 2, 20,000 draws: the mean within 4 standard errors (false alarms: 6e-5), the variance within 5 %.

    Control: normal directions would have the variance 2 ||G||^2, which is further away."""
    last = np.array([[1.0, -2], [0.5, 1], [0.2, 2]])

    def deep(params, x):
        return Gaussian(jnp.tanh(x.reshape(len(x), -1) @ params["encoder"]) @ last)

    x = X[0].reshape(2, 3)
    jacobian = ((1 - np.tanh(X[0] @ W) ** 2) * W @ last).T
    gram = jacobian.T @ jacobian if way == "forward" else jacobian @ jacobian.T
    penalty = getattr(penalties, f"{way}_contraction")(1.0, deep)

    @jax.jit
    def estimates(encoder, keys):
        found, pull = jax.vjp(lambda w: penalty({"encoder": w}, keys, jnp.tile(x, (DRAWS, 1, 1)), 0, 0), encoder)
        return found, pull(jnp.full(DRAWS, 1 / DRAWS))[0]

    found, slope = map(np.asarray, estimates(W, rng.per_example(rng.root(2), jnp.arange(DRAWS))))
    variance = 2 * ((gram**2).sum() - (np.diag(gram) ** 2).sum())
    assert abs(found.mean() - np.trace(gram)) < 4 * (variance / DRAWS) ** 0.5
    np.testing.assert_allclose(found.var(), variance, rtol=0.05)
    assert abs(2 * (gram**2).sum() / variance - 1) > 0.1
    # It trains: the gradient by the parameters is that of the norm.

    def norm(w):
        return (((1 - np.tanh(X[0] @ w) ** 2) * w @ last) ** 2).sum()

    step = 1e-5 * W
    np.testing.assert_allclose((slope * W).sum(), (norm(W + step) - norm(W - step)) / 2e-5, rtol=0.05)


@pytest.mark.parametrize("rho", [0.0, 1.0, -0.5, float("nan")])
def test_an_activation_outside_its_range_is_refused(rho):
    with pytest.raises(InputError, match=r"a mean activation of .*; give one between 0 and 1"):
        penalties.sparsity(rho, 1.0, moving)


def test_negative_weights_and_decays_outside_their_range_are_refused():
    for make in (
        lambda: penalties.sparsity(0.1, -1.0, moving),
        lambda: penalties.sigmoid_contraction(-1.0, moving),
        lambda: penalties.forward_contraction(float("nan"), sigmoids),
        lambda: penalties.backward_contraction(-1.0, sigmoids),
    ):
        with pytest.raises(InputError, match="a penalty weighed by"):
            make()
    for decay in (-0.1, 1.0):
        with pytest.raises(InputError, match="a moving average of decay"):
            optimizers.moving(decay)
