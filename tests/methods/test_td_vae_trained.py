"""TD-VAE learns a belief with a memory: its bound beside Kalman's filter, and beside what one entry tells."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from diffusion_jax.autoencoding import sequential
from diffusion_jax.core import rng
from diffusion_jax.data import sequences
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.methods.autoencoders.td_vae import of_network
from diffusion_jax.models.autoencoders.recurrent import GaussianDecoder, Recurrent

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive, pytest.mark.rare]

MODEL, LENGTH, BATCH, STEPS = sequences.turning(), 12, 64, 1200


def arrays(num, seed):
    source = sequences.series(MODEL, num, LENGTH, seed)
    return np.stack([source[i]["series"] for i in range(num)])


def forgetful(parts):
    """The control: beliefs of the last entry alone."""

    def summary(params, x):
        alone = x.reshape(-1, 1, *x.shape[2:])
        b = parts.summary(params, alone).reshape(*x.shape[:2], 2, -1)
        return jnp.concatenate([b[:, :1, 0], b[:, :, 1]], axis=1)

    return parts._replace(summary=summary)


@pytest.mark.parametrize(("change", "least", "most"), [(lambda parts: parts, 0.0, 0.2), (forgetful, 0.25, 1.0)])
def test_a_learned_belief_is_near_kalmans(change, least, most):
    """Nats an entry above Kalman's, after 1200 steps."""
    model = Recurrent(nn.GRUCell(32), GaussianDecoder((), (1,)), (4,), 32, (), 2)
    parts = change(of_network(model))
    loss, bound = sequential.loss(parts, 1, 2, jumps=8), sequential.step_by_step(parts)
    x, root = jnp.asarray(arrays(5000, 0)), rng.root(0)
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(optax.cosine_decay_schedule(5e-3, STEPS)))
    params = model.init(jax.random.key(0), x[:1])["params"]

    def step(state, number):
        params, moments = state
        index = jax.random.randint(rng.stream(root, "data", number), (BATCH,), 0, len(x))
        keys = rng.per_example(rng.stream(root, "train", number), jnp.arange(BATCH))
        slope = jax.grad(lambda params: loss(keys, params, x[index], Context(()))[0].mean())(params)
        updates, moments = optimizer.update(slope, moments, params)
        return (optax.apply_updates(params, updates), moments), None

    train = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(STEPS))[0])
    params, _ = train((params, optimizer.init(params)))
    test = arrays(1000, 1)
    found = jax.jit(bound)(params, rng.per_example(rng.root(1), jnp.arange(len(test))), test)
    excess = float(found.total.mean()) * np.log(2) + sequences.innovations(MODEL, test).mean()
    assert least < excess < most
