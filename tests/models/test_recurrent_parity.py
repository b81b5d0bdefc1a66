"""TD-VAE's belief and D blocks beside torch's cells and layers, fed the same redrawn weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from diffusion_jax.models.autoencoders.recurrent import BernoulliDecoder, DBlock, Recurrent

torch = pytest.importorskip("torch")

FEATURES, SEEN = 5, 7
CELLS = {
    # Torch's rows are gates in this order; flax names them.
    "lstm": (nn.OptimizedLSTMCell, torch.nn.LSTM, "ifgo"),
    "gru": (nn.GRUCell, torch.nn.GRU, "rzn"),
}


def redrawn(params, seed=0):
    leaves, tree = jax.tree.flatten(params)
    rng = np.random.default_rng(seed)
    return jax.tree.unflatten(tree, [rng.normal(0, 0.5, leaf.shape).astype(np.float32) for leaf in leaves])


def linear(params):
    made = torch.nn.Linear(*params["kernel"].shape)
    with torch.no_grad():
        made.weight.copy_(torch.tensor(params["kernel"].T))
        made.bias.copy_(torch.tensor(params["bias"]))
    return made


def rows(params, side, gates, what):
    """What torch calls weight_ih (side "i") or weight_hh ("h"), or their biases; 0 where flax has none."""
    found = [params[f"{side}{gate}"] for gate in gates]
    if what == "kernel":
        return np.concatenate([part["kernel"].T for part in found])
    return np.concatenate([part.get("bias", np.zeros(FEATURES, np.float32)) for part in found])


@pytest.mark.parametrize("name", CELLS)
def test_the_belief_is_torchs_network_over_time(name):
    cell, kind, gates = CELLS[name]
    model = Recurrent(cell(FEATURES), BernoulliDecoder((), (3, 3, 1)), (2, 2), 4, (SEEN,), 2)
    x = np.random.default_rng(1).normal(size=(2, 6, 3, 3, 1)).astype(np.float32)
    params = redrawn(model.init(jax.random.key(0), jnp.zeros((1, 2, 3, 3, 1)))["params"])
    own = params["cell"]
    theirs = kind(SEEN, FEATURES, batch_first=True)
    with torch.no_grad():
        for side, end in (("i", "ih"), ("h", "hh")):
            getattr(theirs, f"weight_{end}_l0").copy_(torch.tensor(rows(own, side, gates, "kernel")))
            getattr(theirs, f"bias_{end}_l0").copy_(torch.tensor(rows(own, side, gates, "bias")))

    def ours(x):
        return model.apply({"params": params}, x, method="summary")

    see = linear(params["see"]["layer_0"])
    given = torch.tensor(x, requires_grad=True)
    expected, _ = theirs(torch.relu(see(given.reshape(2, 6, 9))))
    (expected**2).sum().backward()
    found, slope = jax.value_and_grad(lambda x: (ours(x) ** 2).sum())(x)
    np.testing.assert_allclose(ours(x)[:, 1:], expected.detach(), rtol=0, atol=2e-6)
    np.testing.assert_array_equal(ours(x)[:, 0], 0)
    np.testing.assert_allclose(found, (expected**2).sum().detach(), rtol=1e-5)
    np.testing.assert_allclose(slope, given.grad, rtol=0, atol=1e-5)
    # The control: gates in another order.
    with torch.no_grad():
        theirs.weight_ih_l0.copy_(torch.tensor(rows(own, "i", gates[::-1], "kernel")))
        other, _ = theirs(torch.relu(see(given.reshape(2, 6, 9))))
    assert np.abs(ours(x)[:, 1:] - other.numpy()).max() > 1e-2


def test_a_d_block_is_gated_and_says_mean_and_log_deviation():
    block = DBlock(4, 3)
    x = np.random.default_rng(2).normal(size=(5, 6)).astype(np.float32)
    params = redrawn(block.init(jax.random.key(0), x)["params"])
    law = block.apply({"params": params}, x)
    with torch.no_grad():
        given = torch.tensor(x)
        h = torch.tanh(linear(params["value"])(given)) * torch.sigmoid(linear(params["gate"])(given))
        mean, log_std = linear(params["mean"])(h), linear(params["log_std"])(h)
    np.testing.assert_allclose(law.mean, mean, rtol=0, atol=2e-6)
    np.testing.assert_allclose(law.std, log_std.exp(), rtol=1e-5)
