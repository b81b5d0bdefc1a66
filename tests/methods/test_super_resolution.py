"""Super-resolution by a network that knows the answer as far as it is told: what it is told, and at which level."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffusion_jax.core import resizing, rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import conditions, sources
from diffusion_jax.diffusion import parameterizations, schedules
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.methods import pixels, super_resolution
from diffusion_jax.training.experiment import SampleRequest

SCHEDULE = schedules.cosine()


class Enlarged(nn.Module):
    """The small image as it was before its noise, as far as its level says, beside x: E[x0 | z] of flat blocks."""

    @nn.compact
    def __call__(self, x, time, cond, dropout_keys=None):
        scale = self.param("scale", nn.initializers.ones_init(), ())
        return scale * x[..., 1:] / SCHEDULE.alpha(cond["noise_level"])[:, None, None, None]


def experiment(**config_values):
    config = super_resolution.with_low(pixels.config_digits(), (4, 4))
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in config_values.items()})
    images = pixels.with_labels(pixels.data(config, sources.digits), 10)
    images = images._replace(sample_condition=conditions.labels(10, null=10))
    data = super_resolution.told_low(config, images, untold={"label": [10]})
    nearest = lambda x, shape: x.repeat(2, axis=1).repeat(2, axis=2)  # noqa: E731
    listening = Enlarged()
    method = super_resolution.method(
        data, listening, nearest, prediction=lambda schedule, time: parameterizations.x0(time)
    )
    return super_resolution.compose_told(config, method)


PARAMS = {"network": {"scale": jnp.ones(())}}


def test_samples_are_told_an_image_with_noise_of_the_level_asked_for():
    """At level 0 this network gives the image back. At another its error is the noise over alpha: 6 x 16 normals,
    whose mean square lies within 0.6 of 1 in all but one of a million tests."""
    made = experiment()
    small = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 4, 4, 1)).astype(np.float32)
    (cond,) = made.data.sample_condition(6, {"low_res": small, "noise_level": np.array([0, 0.2, 0.3])})
    np.testing.assert_array_equal(cond["low_res"], small[[0, 0, 0, 1, 1, 1]])
    np.testing.assert_array_equal(cond["label"], [10] * 6)
    draw = jax.jit(made.sampling.samplers["ddim"](SampleRequest(6, steps=3)))
    keys = rng.per_example(rng.root(0), jnp.arange(6))
    out = np.asarray(draw(PARAMS, keys, cond))
    np.testing.assert_array_equal(out[:, ::2, ::2], out[:, 1::2, 1::2])
    error = (out[:, ::2, ::2] - cond["low_res"]).astype(float)
    np.testing.assert_allclose(error[::3], 0, atol=1e-5)
    for place, level in ((1, 0.2), (2, 0.3)):
        noise = error[place::3] * SCHEDULE.alpha(level) / SCHEDULE.sigma(level)
        assert 0.3 < np.mean(noise**2) < 2.2
        assert np.abs(noise[0] - noise[1]).max() > 0.5  # each example's own
    alone = draw(PARAMS, jnp.roll(keys, 1), jax.tree.map(lambda x: np.roll(x, 1, axis=0), cond))
    np.testing.assert_allclose(np.roll(out, 1, axis=0), alone, atol=1e-6)


def test_the_small_image_of_training_is_the_means_of_the_image_with_noise_of_a_uniform_level():
    """Of images that are flat in blocks the loss is (sigma / alpha)^2 of its level, times a chi-squared of 16 / 16.

    400 examples, seed 1: the median of the loss is that of tan^2(pi level / 2), 1, within a factor of 2 in all but
    one of a million tests.
    """
    made = experiment()
    count = 400
    blocks = np.random.default_rng(1).integers(0, 256, (count, 4, 4, 1), np.uint8)
    batch = {"image": blocks.repeat(2, axis=1).repeat(2, axis=2), "label": np.zeros(count, np.int32)}
    (cond,) = made.data.condition(jax.tree.map(jnp.asarray, batch))
    np.testing.assert_allclose(cond["low_res"], blocks / 127.5 - 1, atol=1e-6)
    keys = rng.per_example(rng.root(1), jnp.arange(count))
    losses, _ = made.task.loss(keys, PARAMS, jax.tree.map(jnp.asarray, batch), Context(jnp.full(count, 0.5)))
    assert 0.5 < np.median(losses) < 2
    assert np.quantile(losses, 0.1) < 0.06  # tan^2(pi / 20) is 0.025
    assert np.quantile(losses, 0.9) > 15  # and tan^2(9 pi / 20) 40


def test_what_is_told_by_default_and_what_cannot_be():
    made = experiment(low__level=0.25)
    (cond,) = made.data.sample_condition(3, {})
    test = sources.digits("test")
    np.testing.assert_array_equal(cond["label"], [test[i]["label"] for i in range(3)])
    image = np.stack([test[i]["image"] for i in range(3)]) / 127.5 - 1
    np.testing.assert_allclose(cond["low_res"], resizing.means(jnp.asarray(image), (4, 4)), atol=1e-6)
    np.testing.assert_array_equal(cond["noise_level"], np.float32(0.25))
    low = np.zeros((1, 4, 4, 1))
    assert made.data.sample_condition(1, {"low_res": low, "label": np.array([3])})[0]["label"] == 3
    for given, said in (
        ({"low_res": low[:, :2]}, r"low_res of shape \(1, 2, 4, 1\): give \[samples, 4, 4, 1\]"),
        ({"low_res": low, "noise_level": np.array([2])}, "noise_level is a list of numbers from 0 to 1"),
        ({"low_res": low, "depth": np.zeros(1)}, "no condition 'depth'"),
    ):
        with pytest.raises(InputError, match=said):
            made.data.sample_condition(1, given)
    with pytest.raises(InputError, match="images of 8x8 are no blocks of 3x3 pixels"):
        experiment(low__size=(3, 3))
