"""The discriminator of patches: its size, what an output sees, and an independent implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.judges.patch import PatchDiscriminator

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("halvings", "parameters", "patches"), [(3, 2_765_633, 30), (2, 663_361, 62)])
def test_sizes_are_the_published_ones(halvings, parameters, patches):
    logits, variables = jax.eval_shape(
        PatchDiscriminator(halvings=halvings).init_with_output, jax.random.key(0), jnp.zeros((1, 256, 256, 3))
    )
    assert sum(x.size for x in jax.tree.leaves(variables)) == parameters
    assert logits.shape == (1, patches, patches, 1)


def redrawn(network, x):
    """Parameters in which nothing is 0 or alike."""
    params = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: random.normal(size=leaf.shape, scale=0.3).astype(np.float32), params)


SMALL = PatchDiscriminator(features=4, halvings=2, groups=2)


def test_an_example_is_judged_by_itself():
    """Batch normalisation would couple it with the others."""
    x = np.random.default_rng(1).normal(size=(2, 12, 16, 3)).astype(np.float32)
    params = redrawn(SMALL, x)
    apply = jax.jit(lambda x: SMALL.apply({"params": params}, x))
    np.testing.assert_allclose(apply(np.concatenate([x[:1], 9 * x[1:]]))[0], apply(x)[0], rtol=1e-5)


def test_too_many_halvings_are_refused():
    for halvings, side in ((2, 11), (3, 23)):
        network = PatchDiscriminator(halvings=halvings)
        with pytest.raises(InputError, match=rf"images of {side}x{side + 5} leave nothing .* {halvings} halvings"):
            jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, side, side + 5, 1)))
        image = jnp.zeros((1, side + 1, side + 1, 1))  # the smallest that leaves something
        assert jax.eval_shape(network.init_with_output, jax.random.key(0), image)[0].shape == (1, 1, 1, 1)


def test_torch_computes_the_same():
    torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
    from torch.nn import functional

    x = np.random.default_rng(2).normal(size=(2, 15, 12, 3)).astype(np.float32)
    params = redrawn(SMALL, x)

    def convolved(h, name, stride):
        kernel, bias = params[name]["kernel"], params[name].get("bias")
        bias = None if bias is None else torch.from_numpy(bias)
        return functional.conv2d(h, torch.from_numpy(kernel.transpose(3, 2, 0, 1)), bias, stride=stride, padding=1)

    h = functional.leaky_relu(convolved(torch.from_numpy(x.transpose(0, 3, 1, 2)), "conv_0", 2), 0.2)
    for i, stride in ((1, 2), (2, 1)):
        scale, bias = (torch.from_numpy(params[f"norm_{i}"][name]) for name in ("scale", "bias"))
        h = functional.group_norm(convolved(h, f"conv_{i}", stride), 2, scale, bias, eps=1e-5)
        h = functional.leaky_relu(h, 0.2)
    theirs = convolved(h, "logits", 1).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(SMALL.apply({"params": params}, x), theirs, rtol=1e-4, atol=1e-5)
