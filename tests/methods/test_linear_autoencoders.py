"""Linear autoencoders of the digits, trained by the loop that the command line runs, end on their closed optima."""

import jax
import numpy as np
import pytest

from diffusion_jax.autoencoding import objectives
from diffusion_jax.data import sources
from diffusion_jax.methods.autoencoders import beta_vae, compose, denoising, images, plain, sparse, vae
from diffusion_jax.training.loop import fit

K = 4
X = sources.digits("train")
X = np.stack([X[i]["image"].reshape(-1) for i in range(len(X))]) / 255.0
D = X.shape[1]
VARIANCES = np.linalg.eigvalsh(np.cov(X.T, bias=True))[::-1]


def linear(config, **train):
    config.model.codes, config.model.hidden = K, ()
    return short(config, **train)


def short(config, steps=1500, rate=0.03):
    config.train.batch_size, config.train.steps, config.train.learning_rate = 50, steps, rate
    config.train.warmup_steps, config.train.decay_steps = 20, steps - 20
    config.train.clip_norm = 0.0
    config.log.every = config.log.sample_every = config.log.checkpoint_every = 0
    return config


def trained(method, config, workdir):
    """Parameters at the end, in float64."""
    state = fit(compose.compose(config, method), config, workdir, devices=jax.devices()[:1])
    return jax.tree.map(lambda x: np.asarray(x, np.float64), jax.device_get(state.ema))


def layer(params, part):
    return params[part]["layer_0"]["kernel"], params[part]["layer_0"]["bias"]


def digits(config):
    return images.data(config, sources.digits)


def close(found, least, share):
    """Above the optimum, by at most `share` of what there is to learn."""
    assert least - 1e-6 < found < least + share


pytestmark = [pytest.mark.exhaustive, pytest.mark.rare]


def test_a_plain_one_loses_the_trailing_variances(tmp_path):
    config = linear(plain.default_config())
    params = trained(plain.method(config, digits(config)), config, tmp_path)
    (w, b), (v, c) = layer(params, "encoder"), layer(params, "decoder")
    close((((X @ w + b) @ v + c - X) ** 2).sum(1).mean(), VARIANCES[K:].sum(), 0.005)


def test_a_denoising_one_is_wieners_filter(tmp_path):
    """Linear units, so the loss is put together anew."""
    sigma = 0.4
    config = linear(denoising.with_noise(plain.default_config(), sigma))
    made = plain.method(config, digits(config))
    made = made._replace(loss=objectives.loss(made.code, made.decode, spoil=denoising.noise(config)))
    params = trained(made, config, tmp_path)
    (w, b), (v, c) = layer(params, "encoder"), layer(params, "decoder")
    error = (((X @ w + b) @ v + c - X) ** 2).sum(1).mean() + sigma**2 * ((w @ v) ** 2).sum()
    kept = VARIANCES[:K] * sigma**2 / (VARIANCES[:K] + sigma**2)
    close(error, kept.sum() + VARIANCES[K:].sum(), 0.02)
    assert VARIANCES[K:].sum() + 0.1 < error  # control: without noise it would be less


def rate_and_error(params):
    """(mean rate, mean squared error), exactly, of a linear decoder."""
    (w, b), (v, c) = layer(params, "encoder"), layer(params, "decoder")
    mean, log_var = np.split(X @ w + b, 2, axis=1)
    rate = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).sum(1)
    error = ((mean @ v + c - X) ** 2).sum(1) + (np.exp(log_var) * (v**2).sum(1)).sum(1)
    return rate.mean(), error.mean()


def test_a_variational_one_is_probabilistic_pca(tmp_path):
    config = linear(vae.default_config())
    params = trained(vae.method(config, digits(config)), config, tmp_path)
    rate, error = rate_and_error(params)
    var, rest = np.exp(params["noise"]["log_var"]), VARIANCES[K:].mean()
    log_det = np.log(VARIANCES[:K]).sum() + (D - K) * np.log(rest)
    found = rate + 0.5 * (D * np.log(2 * np.pi * var) + error / var)
    close(found, 0.5 * (D * np.log(2 * np.pi) + log_det + D), 0.2)
    np.testing.assert_allclose(var, rest, rtol=0.02)
    np.testing.assert_allclose(var, error / D, rtol=0.02)


def water(level):
    """(rate, squared error) of reverse water-filling over at most `K` directions."""
    kept = np.minimum(VARIANCES[:K], level)
    return 0.5 * np.log(VARIANCES[:K] / kept).sum(), kept.sum() + VARIANCES[K:].sum()


def test_a_weighed_rate_is_reverse_water_filling(tmp_path):
    config = linear(beta_vae.with_beta(beta_vae.default_config()))
    config.decoder.var, config.rate.beta = 0.1, 4.0
    params = trained(beta_vae.method(config, digits(config)), config, tmp_path)
    assert VARIANCES[0] > 0.4 > VARIANCES[K - 1]  # some directions are used
    np.testing.assert_allclose(rate_and_error(params), water(0.4), atol=0.05)


def test_a_capacity_is_the_rate(tmp_path):
    config = linear(beta_vae.with_capacity(beta_vae.default_config()))
    config.decoder.var, config.rate.most, config.rate.steps, config.rate.gamma = 0.1, 1.0, 300, 10.0
    params = trained(beta_vae.capacity(config, digits(config)), config, tmp_path)
    levels = np.geomspace(VARIANCES[0], 1e-3, 10_000)
    level = levels[np.argmin([abs(water(level)[0] - 1.0) for level in levels])]
    np.testing.assert_allclose(rate_and_error(params), water(level), atol=0.1)


def test_a_sparse_ones_decoder_is_the_regression_on_its_units(tmp_path):
    """And its units are sparse: the moving mean is theirs."""
    config = short(sparse.default_config())
    config.model.codes = 10
    params = trained(sparse.method(config, digits(config)), config, tmp_path)
    (w, b), (v, c) = layer(params, "encoder"), layer(params, "decoder")
    units = 1 / (1 + np.exp(-(X @ w + b)))
    design = np.column_stack([units, np.ones(len(X))])
    best = X - design @ np.linalg.lstsq(design, X, rcond=None)[0]
    close(((units @ v + c - X) ** 2).sum(1).mean(), (best**2).sum(1).mean(), 0.02)
    np.testing.assert_allclose(params["statistics"]["activation"], units.mean(0), atol=0.02)
