"""What published networks of texts are told where a person does not say it."""

from types import SimpleNamespace

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.pipelines import told
from diffusion_jax.pipelines.told import Drawn
from diffusion_jax.pretrained.published import shape


def condition(**given):
    """Of a network with room for 60 numbers beside the time, a size having 4."""
    takes = {"tokens": shape(1, 1, 8), "pooled": shape(1, 36), "time_ids": shape(1, 6)}
    config = {"projection_class_embeddings_input_dim": 60, "addition_time_embed_dim": 4}
    network = SimpleNamespace(example=(None, None, takes))
    heard = told.of_text(config, network, Drawn((8, 8, 4), (64, 96), None))
    texts = {"tokens": np.zeros((1, 5, 8)), "null_tokens": np.zeros((1, 5, 8))}
    return heard.condition(2, texts | given)[0]


def pooled(features):
    return {"pooled": np.zeros((1, features)), "null_pooled": np.zeros((1, features))}


def test_as_many_sizes_as_fit_beside_a_pooled_text():
    found = condition(**pooled(36))
    for name in ("time_ids", "null_time_ids"):
        np.testing.assert_array_equal(found[name], [[64, 96, 0, 0, 64, 96]] * 2)
    found = condition(**pooled(40))  # a refiner's
    np.testing.assert_array_equal(found["time_ids"], [[64, 96, 0, 0, 6.0]] * 2)
    np.testing.assert_array_equal(found["null_time_ids"], [[64, 96, 0, 0, 2.5]] * 2)


def test_a_size_that_is_given_withholds_nothing():
    found = condition(**pooled(36), time_ids=np.array([[1, 2, 3, 4, 5, 6]]))
    np.testing.assert_array_equal(found["null_time_ids"], found["time_ids"])
    assert condition(**pooled(40), time_ids=np.array([[1, 2, 3, 4, 9.0]]))["null_time_ids"][0, -1] == 2.5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (pooled(38), "pooled has 38 features; this network is told 40 or 36"),
        (pooled(36) | {"null_pooled": np.zeros((1, 7))}, "null_pooled has 7 features"),
        (pooled(40) | {"time_ids": np.zeros((1, 6))}, "time_ids has 6 numbers; beside this text go 5"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(given, said):
    with pytest.raises(InputError, match=said):
        condition(**given)
