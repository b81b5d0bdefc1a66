"""Our bridge against diffusers' VQ-Diffusion scheduler, whose chain masks, redraws and keeps (Gu et al. 2022)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Categorical
from diffusion_jax.diffusion.processes.categorical import general

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

K, T, B, L = 5, 12, 3, 7
MASK = K - 1
TABLES = ("log_at", "log_bt", "log_ct", "log_cumprod_at", "log_cumprod_bt", "log_cumprod_ct")


def theirs_in_double(monkeypatch):
    """The scheduler with its tables and one-hot vectors in float64: it rounds them, and only them, to float32."""
    from diffusers.schedulers import scheduling_vq_diffusion as vq

    one_hot = vq.index_to_log_onehot
    monkeypatch.setattr(vq, "index_to_log_onehot", lambda x, num: one_hot(x, num).double())
    scheduler = diffusers.VQDiffusionScheduler(num_vec_classes=K, num_train_timesteps=T)
    at, att = vq.alpha_schedules(T)
    ct, ctt = vq.gamma_schedules(T)
    tables = at, (1 - at - ct) / (K - 1), ct, att, (1 - att - ctt) / (K - 1), ctt
    for name, table in zip(TABLES, tables, strict=True):
        setattr(scheduler, name, torch.log(torch.tensor(table)))
    return scheduler


def transitions(scheduler):
    a, b, c = (torch.exp(getattr(scheduler, name)).numpy() for name in TABLES[:3])
    steps = np.zeros((T, K, K))
    steps[:, :MASK, :MASK] = a[:, None, None] * np.eye(MASK) + b[:, None, None]
    steps[:, :MASK, MASK] = c[:, None]
    steps[:, MASK, MASK] = 1
    return steps


@pytest.mark.parametrize("index", [T - 1, T // 2, 1])
def test_the_posterior_is_vq_diffusions(x64, monkeypatch, index):
    """The chain of matrices against closed forms of their products; diffusers counts times from 0."""
    scheduler = theirs_in_double(monkeypatch)
    log_p = np.log(np.random.default_rng(0).dirichlet(np.ones(MASK), size=(B, L)))
    x_t = np.random.default_rng(1).integers(0, K, size=(B, L))
    theirs = scheduler.q_posterior(torch.tensor(log_p).permute(0, 2, 1), torch.tensor(x_t), index)
    theirs = np.exp(theirs.permute(0, 2, 1).numpy())
    logits = jnp.concatenate([log_p, jnp.full((B, L, 1), -jnp.inf)], axis=-1)
    process = general(transitions(scheduler))
    kernel = process.bridge((index + 1) / T, index / T)(Categorical(logits), jnp.asarray(x_t))
    ours = jax.nn.softmax(kernel.logits)
    np.testing.assert_allclose(ours, theirs, atol=1e-10)
    # Control: the step before is another.
    other = process.bridge(index / T, (index - 1) / T)(Categorical(logits), jnp.asarray(x_t))
    assert np.abs(jax.nn.softmax(other.logits) - theirs).max() > 1e-3
