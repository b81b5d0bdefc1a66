"""What is shown of autoencoders, against encoders and decoders that are known."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.autoencoding import bottlenecks
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.data import views
from diffusion_jax.methods.autoencoders import looks, surveys

WEIGHTS = np.random.default_rng(0).uniform(0, 0.1, (3, 4)).astype(np.float32)
X = np.random.default_rng(1).uniform(size=(5, 2, 2, 1)).astype(np.float32)
KEYS = jax.random.split(jax.random.key(0, impl="threefry2x32"), 5)


def encode(params, x):
    return Gaussian(x.reshape(len(x), -1)[:, :3], 0.0)


def decode(params, z):
    return Gaussian((z @ WEIGHTS).reshape(-1, 2, 2, 1), 1.0)


def test_a_walk_moves_one_number_of_a_code_and_leaves_the_others():
    found = looks.traversal(encode, decode, views.pictures(0.0), reach=2.0).draw({}, KEYS, X)
    z = X.reshape(5, -1)[:, :3]
    for example in range(5):
        for number in range(3):
            for place, value in enumerate(np.linspace(-2, 2, looks.PLACES)):
                moved = np.where(np.arange(3) == number, value, z[example])
                shown = found[3 * example + number, place].reshape(-1)
                np.testing.assert_allclose(shown, moved @ WEIGHTS, atol=1e-6)


def test_pairs_are_kept_and_shown_side_by_side():
    look = looks.pairs(coder(encode, bottlenecks.mean), decode, views.pictures(0.0))
    found = np.asarray(look.draw({}, KEYS, X))
    np.testing.assert_array_equal(found[:, 0], X)
    np.testing.assert_allclose(found[:, 1], decode({}, encode({}, X).mean).mean, atol=1e-6)
    picture = look.view.picture(found)
    # Four pairs in a row: eight pictures of 2 x 2, each enlarged 32 times, with white between.
    assert picture.shape == (2 * 66 + 2, 8 * 66 + 2, 1)
    assert picture[3, 3] == np.rint(255 * X[0, 0, 0, 0])


def test_filters_are_grey_where_a_weight_is_zero():
    kernel = jnp.array([[0.0, 2.0], [1.0, -4.0], [-1.0, 0.0], [0.5, 1.0]])
    found = looks.filters(lambda params: kernel, (2, 2, 1), views.pictures(0.0)).draw({}, KEYS, X)
    np.testing.assert_allclose(found.reshape(2, 4), [[0.5, 1, 0, 0.75], [0.75, 0, 0.5, 0.625]])


def test_surveys_in_one_pass_find_what_they_find_alone():
    code = coder(encode, bottlenecks.mean)
    both = surveys.joined(surveys.errors(code, decode), surveys.active_units(encode))
    found = {name: np.asarray(x) for name, x in both.each({}, KEYS, X).items()}
    summary = both.summary(found)
    mean = np.asarray(decode({}, X.reshape(5, -1)[:, :3]).mean)
    np.testing.assert_allclose(summary["reconstruction error"], ((mean - X) ** 2).mean(), rtol=1e-5)
    nats = 2 * np.log(2 * np.pi) + ((mean - X) ** 2).sum((1, 2, 3)).mean() / 2
    np.testing.assert_allclose(summary["distortion, nats"], nats, rtol=1e-5)
    assert summary["active units"] == (X.reshape(5, -1)[:, :3].var(0) > surveys.ACTIVE).sum()
