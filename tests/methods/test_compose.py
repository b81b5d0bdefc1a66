"""Samplers that have no chain."""

import jax
import numpy as np
import pytest

from diffusion_jax.app import sampling
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError, NotFiniteError
from diffusion_jax.methods.compose import direct
from diffusion_jax.training.experiment import OPTIONS, SampleRequest

KEY = jax.random.key(1, impl=rng.KIND)


def decoded(scale, keys, cond=None):
    return scale * jax.vmap(jax.random.normal)(keys) + (cond or {"shift": 0})["shift"]


MAKE = direct(decoded)


def test_what_is_drawn_without_a_chain():
    keys = rng.per_example(KEY, np.arange(3))
    sample_fn = MAKE(SampleRequest(3, gather=lambda scale: 2 * scale))
    expected = decoded(2.0, keys)
    np.testing.assert_array_equal(sample_fn(1.0, KEY), expected)
    np.testing.assert_array_equal(sample_fn(1.0, keys, {"shift": 1.0}), expected + 1)
    with pytest.raises(InputError, match="one for each of 3 examples"):
        sample_fn(1.0, keys[:2])


@pytest.mark.parametrize(
    ("asked", "flag"),
    [(SampleRequest(1)._replace(**{option: 1}), flag) for option, flag in OPTIONS.items()]
    + [(sampling.filming(SampleRequest(1)), "--film")],
)
def test_options_of_a_chain_are_refused_by_name(asked, flag):
    with pytest.raises(InputError, match=f"takes no {flag}; leave it out"):
        MAKE(asked)


def test_a_sample_that_is_not_finite_is_refused_although_no_chain_can_be_walked_again():
    keys = rng.per_example(KEY, np.arange(3))
    request, cond = SampleRequest(1), ({"shift": np.array([0, 0, np.nan], np.float32)},)
    with pytest.raises(NotFiniteError, match="sample 2 is not finite; 1 of 3"):
        sampling.draw(MAKE, np.float32(1), keys, cond, request, 3, quiet=True)
