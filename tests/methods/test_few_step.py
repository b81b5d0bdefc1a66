"""What the pages of few-step methods refuse, in one line, before anything is compiled."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sources
from diffusion_jax.diffusion import losses, processes
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import compose
from diffusion_jax.methods.few_step import guided, mean_flow, progressive, shortcut, told
from diffusion_jax.models import two_times
from diffusion_jax.training.experiment import SampleRequest


def parts(config):
    return pixels.data(config, sources.digits), two_times.listening(pixels.unet(config))


def test_attention_without_a_derivative_forwards():
    config = mean_flow.with_pairs(pixels.config_digits())
    config.model.flash = True
    with pytest.raises(InputError, match=r"no derivative forwards.*leave --config.model.flash out"):
        mean_flow.method(config, *parts(config))


def test_lengths_of_steps_that_were_not_learned():
    config = shortcut.with_shortcuts(pixels.config_digits())
    (chain,) = shortcut.method(config, *parts(config)).chains.values()
    for steps in (1, 2, 128):
        assert len(chain(steps).times) == steps + 1
    for steps in (3, 256):
        with pytest.raises(InputError, match=rf"{steps} steps of a shortcut model: it has learned 1, 2, 4, ..., 128"):
            chain(steps)
    config.shortcut.smallest = 100
    with pytest.raises(InputError, match="shortcuts of 100 smallest steps: take a power of two"):
        shortcut.method(config, *parts(config))


def test_nothing_told_is_a_label_that_a_guided_map_knows():
    config = mean_flow.with_guidance(mean_flow.with_pairs(pixels.config_digits()))
    data = guided.labelled(config, sources.digits, 10)
    model = two_times.listening(guided.network(config, 10))
    method = mean_flow.guided(config, mean_flow.method(config, data, model), 10)
    (cond,) = method.data.sample_condition(2, {"label": [10]})
    assert jax.tree.map(lambda x: x.tolist(), cond) == {"label": [10, 10]}


def test_a_map_that_is_told_the_scale_draws_at_those_it_knows():
    config = told.with_scales(mean_flow.with_pairs(pixels.config_digits()))
    data = guided.told(guided.labelled(config, sources.digits, 10))
    model = two_times.listening(guided.student_of(guided.network(config, 10)))
    experiment = compose(config, told.method(config, mean_flow.method(config, data, model), 10))
    make, data = experiment.sampling.samplers["jump"], experiment.data
    params = jax.eval_shape(experiment.task.init, jax.random.key(0))
    cond = data.sample_condition(2, {"label": [3, 8]})
    for scale in (None, 1.5):
        drawn = jax.eval_shape(make(SampleRequest(2, guidance_scale=scale)), params, jax.random.key(0), *cond)
        assert drawn.shape == (2, 8, 8, 1)
    with pytest.raises(InputError, match=r"guidance 5.5: this model knows scales from 1 to 5"):
        make(SampleRequest(2, guidance_scale=5.5))


def test_merged_outputs_have_the_loss_of_v():
    """In v the loss in x0, weighted by SNR + 1, is that in v; x0 and the noise have none where both are right."""
    keys, t = jax.random.split(jax.random.key(0), 4), jnp.array([0.05, 0.3, 0.7, 1.0])
    x0 = jax.random.normal(jax.random.key(1), (4, 6))
    process = processes.gaussian(progressive.SCHEDULE)

    def of(loss, apply, parameterization):
        return loss(apply, parameterization, process)(keys, {}, x0, Context(t))[0]

    def saying(params, x, time, dropout_keys):
        return jnp.sin(3 * x) + 0.2

    np.testing.assert_allclose(
        of(progressive.merged(), saying, progressive.V), of(losses.simple, saying, progressive.V), rtol=1e-3
    )

    def right(params, x, time, dropout_keys, off=0.0):
        alpha, sigma = (expand(part(t), x) for part in progressive.SCHEDULE[:2])
        return jnp.concatenate([x0 + off, (x - alpha * x0) / sigma], -1)

    assert of(progressive.merged(), right, progressive.X0_AND_EPS).max() < 1e-5
    off = of(progressive.merged(), partial(right, off=1.0), progressive.X0_AND_EPS)
    np.testing.assert_allclose(off, progressive.SCHEDULE.sigma(t) ** 2, rtol=1e-3)
