"""What the pages of few-step methods refuse, in one line, before anything is compiled."""

import jax
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sources
from diffusion_jax.methods import pixels
from diffusion_jax.methods.few_step import guided, mean_flow, shortcut
from diffusion_jax.models import two_times


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
