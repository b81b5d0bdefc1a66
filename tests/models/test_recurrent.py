"""TD-VAE's networks: what each law may see, and in which order layers do."""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from diffusion_jax.models.autoencoders.recurrent import BernoulliDecoder, Recurrent

MODEL = Recurrent(nn.GRUCell(5), BernoulliDecoder((6,), (2, 2, 1)), (3, 2), 4, (), 3)
X = np.random.default_rng(0).normal(size=(1, 4, 2, 2, 1)).astype(np.float32)
PARAMS = MODEL.init(jax.random.key(0), X)
Z = (jnp.ones((1, 3)), jnp.full((1, 2), 0.5))


def call(name, *given):
    return MODEL.apply(PARAMS, *given, method=name)


def test_a_belief_sees_the_past_and_nothing_else():
    slopes = jax.jit(jax.jacobian(lambda x: call("summary", x)[0]))(X)[:, :, 0]  # [T + 1, features, T, ...]
    seen = np.abs(slopes).reshape(5, 5, 4, -1).max((1, 3)) > 0
    np.testing.assert_array_equal(seen, np.arange(4) < np.arange(5)[:, None])


def test_lower_layers_are_told_the_higher_in_every_law():
    b, jump = call("summary", X)[:, 2], jnp.array([2])
    laws = {"belief": (b,), "smoothing": (Z, b, jump), "transition": (Z, jump)}
    for name, given in laws.items():
        assert call(name, (), *given).mean.shape == (1, 3)
        low = jax.jacobian(lambda high, name=name, given=given: call(name, (high,), *given).mean)(Z[0])
        assert low.shape == (1, 2, 1, 3)
        assert (np.abs(low) > 0).all()


def test_the_length_of_a_jump_is_told():
    b = call("summary", X)[:, 1]
    for name, given in {"smoothing": (Z, b), "transition": (Z,)}.items():
        means = [np.asarray(call(name, (), *given, jnp.array([jump])).mean) for jump in (1, 2, 3)]
        assert all(np.abs(one - other).max() > 1e-3 for one, other in pairwise(means))
