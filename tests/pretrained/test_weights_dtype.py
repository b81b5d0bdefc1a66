"""Parameters in the dtype of their file: networks convert each when they use it, and compute in their own dtype."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from encoders_tiny import CONFIGS as ENCODER_CONFIGS
from first_stages_tiny import TINY
from published_tiny import CONFIGS

from diffusion_jax.pretrained import encoders, first_stages, loading

ENCODERS = ("CLIPModel", "T5EncoderModel")
NETWORKS = {
    **{name: (loading.build, config) for name, config in CONFIGS.items()},
    **{name: (lambda config: first_stages.described(config).network, config) for name, config in TINY.items()},
    **{name: (encoders.described, ENCODER_CONFIGS[name]) for name in ENCODERS},
}


def drawn(tree, dtype):
    """Numbers, and valid ids."""
    rng = np.random.default_rng(0)

    def draw(leaf):
        return (
            jnp.asarray(rng.normal(size=leaf.shape), dtype)
            if leaf.dtype == np.float32
            else jnp.zeros(leaf.shape, int)
        )

    return jax.tree.map(draw, tree)


@pytest.mark.parametrize("name", ["text", "consistency", "ncsnpp", "dit", "kl", "tiny"])
def test_a_network_computes_in_its_own_dtype(name):
    make, config = NETWORKS[name]
    network = make(config)
    half = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, jnp.bfloat16), network.template())
    found = jax.eval_shape(network.model.apply, {"params": half}, *network.example)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {np.dtype(np.float32)}


@pytest.mark.parametrize("name", ["flat", *ENCODERS])
def test_what_it_computes_is_that_of_the_same_parameters_in_float32(name):
    """To rounding. The control: before they were rounded to bfloat16 they gave something else."""
    make, config = NETWORKS[name]
    network = make(config)
    before, shown = drawn(network.template(), np.float32), drawn(network.example, np.float32)
    half = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), before)

    @jax.jit
    def outputs(half, before):
        single = jax.tree.map(lambda leaf: leaf.astype(np.float32), half)
        return [network.model.apply({"params": params}, *shown) for params in (half, single, before)]

    found, wanted, other = outputs(half, before)
    assert found.dtype == np.float32
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    np.testing.assert_allclose(found, wanted, **tolerance)
    assert not np.allclose(other, wanted, **tolerance)
