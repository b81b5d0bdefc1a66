"""Edits with shared noise, enumerated over every token and every noise."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Categorical, certain
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import timesteps
from diffusion_jax.diffusion.processes.categorical import categorical, cosine_alpha, linear_alpha, masked
from diffusion_jax.diffusion.processes.edit import edit

K = 4
LAWS = {"uniform": np.ones(K) / K, "mask": np.eye(K)[3], "other": np.array([0.1, 0.2, 0.3, 0.4])}
INTERVALS = [(0.6, 0.3), (1.0, 0.9), (0.1, 0.0), (1.0, 0.0)]


def matrix(alpha, pi, t):
    """q(x_t | x0), rows x0."""
    return alpha(t) * np.eye(K) + (1 - alpha(t)) * pi


def law(process, t, s, p):
    """p(x_s | x_t) at [x_t, x_s], from estimates p [x_t, x0]."""
    with np.errstate(divide="ignore"):
        kernel = process.bridge(t, s)(Categorical(jnp.log(p)), jnp.arange(K))
    return np.asarray(jax.nn.softmax(kernel.logits))


@pytest.mark.parametrize("pi", LAWS.values(), ids=LAWS)
@pytest.mark.parametrize(("t", "s"), INTERVALS)
def test_every_x0_keeps_its_marginal(x64, pi, t, s):
    process = edit(cosine_alpha, pi)
    now, before = matrix(cosine_alpha, pi, t), matrix(cosine_alpha, pi, s)
    for k in range(K):
        step = law(process, t, s, np.eye(K)[[k] * K])
        np.testing.assert_allclose(now[k] @ step, before[k], atol=1e-14)
        np.testing.assert_allclose(step[k], np.eye(K)[k], atol=1e-15)  # x_t = x0 stays
        # Control: a step as long, but from elsewhere, does not keep it (but for a token that is pi itself).
        if s > 0 and t < 1 and pi[k] < 1:
            wrong = now[k] @ law(process, t + 0.1, s + 0.1, np.eye(K)[[k] * K])
            assert np.abs(wrong - before[k]).max() > 1e-3


def test_the_noise_is_shared(x64):
    """Given x0, the pair (x_t, x_s) has the law of one noise seen at two times: over levels and tokens, counted."""
    pi, (t, s), x0, num = LAWS["other"], (0.75, 0.25), 2, 4
    pairs = np.zeros((K, K))
    for level, z in itertools.product((np.arange(num) + 0.5) / num, range(K)):
        x_t, x_s = (x0 if level < linear_alpha(u) else z for u in (t, s))
        pairs[x_t, x_s] += pi[z] / num
    ours = matrix(linear_alpha, pi, t)[x0][:, None] * law(edit(linear_alpha, pi), t, s, np.eye(K)[[x0] * K])
    np.testing.assert_allclose(ours, pairs, atol=1e-15)
    # Control: the posterior of independent steps keeps both marginals, and redraws.
    theirs = matrix(linear_alpha, pi, t)[x0][:, None] * law(categorical(linear_alpha, pi), t, s, np.eye(K)[[x0] * K])
    np.testing.assert_allclose(theirs.sum(0), pairs.sum(0), atol=1e-15)
    assert np.abs(theirs - pairs).max() > 1e-2


@pytest.mark.parametrize(("t", "s"), INTERVALS)
def test_masks_are_lifted_as_by_the_posterior_where_revealed_tokens_are_kept(x64, t, s):
    p = np.eye(K)
    p[3] = [0.5, 0.2, 0.3, 0.0]
    ours = law(edit(linear_alpha, LAWS["mask"]), t, s, p)
    np.testing.assert_allclose(ours, law(masked(linear_alpha, K, 3), t, s, p), atol=1e-15)
    # Control: an estimate that doubts a revealed token edits it here, and not there.
    p[0] = [0.5, 0.5, 0.0, 0.0]
    ours = law(edit(linear_alpha, LAWS["mask"]), t, s, p)
    assert np.abs(ours - law(masked(linear_alpha, K, 3), t, s, p))[0].max() > 0.03


def test_an_exact_denoiser_leads_to_the_law_of_a_token(x64):
    """The chain as a product of kernels, in any number of steps."""
    data = np.array([0.5, 0.3, 0.2, 0.0])
    for pi in LAWS.values():
        process = edit(cosine_alpha, pi)

        def reached(skew, process=process, pi=pi):
            law_t = pi
            for t, s in itertools.pairwise(timesteps.linear(4)):
                joint = data[:, None] * matrix(cosine_alpha, pi, t)
                possible = joint.sum(0) > 0  # the others have no mass to go on with
                posterior = np.where(possible, joint, data[:, None]).T ** skew
                law_t = law_t @ law(process, t, s, posterior / posterior.sum(1, keepdims=True))
            return law_t

        np.testing.assert_allclose(reached(1.0), data, atol=1e-14)
        assert np.abs(reached(1.2) - data).max() > 0.01  # control: estimates that are too sure


def test_the_last_step_returns_the_estimate_and_nothing_is_nan():
    """Gradients too: at both ends, for huge logits, for tokens that are excluded, on grids and traced (float32)."""
    process = edit(linear_alpha, LAWS["uniform"])
    normal = jax.random.normal(jax.random.key(0), (K, 1, K))
    x_t, times = jnp.arange(K)[:, None], timesteps.linear(3)
    grid = process.bridge(times[:-1], times[1:])
    assert [leaf.dtype for leaf in jax.tree.leaves(grid)] == [np.float64]

    @jax.jit
    def kernel_and_slope(step, logits):
        def total(logits):
            out = step(Categorical(logits), x_t).logits
            return jnp.sum(jnp.where(out > -jnp.inf, out, 0.0) * jnp.arange(K)), out

        return jax.grad(total, has_aux=True)(logits)

    traced = jax.jit(lambda t, s: process.bridge(t, s)(Categorical(normal), x_t).logits)
    for n, (t, s) in enumerate(itertools.pairwise(times)):
        step = jax.tree.map(lambda a, n=n: a[n], grid)
        for logits in (normal, 1e4 * normal, jnp.where(jnp.eye(K)[3] > 0, -jnp.inf, normal)):
            slope, out = kernel_and_slope(step, logits)
            assert not jnp.isnan(out).any()
            assert not jnp.isnan(slope).any()
            if s == 0:
                np.testing.assert_allclose(out, jax.nn.log_softmax(logits), rtol=1e-6, atol=1e-6)
        at_times = traced(jnp.full(K, t), jnp.full(K, s))
        np.testing.assert_allclose(at_times, step(Categorical(normal), x_t).logits, atol=1e-5)
    # So early that float32 cannot tell alpha from 1.
    assert not jnp.isnan(traced(jnp.full(K, 1e-9), jnp.zeros(K))).any()


def test_corruption_is_the_posterior_process_s():
    processes = (make(linear_alpha, LAWS["other"]) for make in (edit, categorical))
    ours, theirs = (process.corrupt(jax.random.key(0), jnp.arange(K), 0.5) for process in processes)
    jax.tree.map(np.testing.assert_array_equal, ours, theirs)


def wrong_vocabulary():
    return edit(linear_alpha, [0.5, 0.5]).bridge(0.5, 0.3)(certain(jnp.zeros(2, int), 3), jnp.zeros(2, int))


@pytest.mark.parametrize(
    ("bad", "match"),
    [
        (lambda: edit(linear_alpha, [0.5, 0.6]), "pi must be"),
        (lambda: edit(linear_alpha, LAWS["mask"]).bridge(0.5, 0.5), "0 <= s < t <= 1"),
        (lambda: edit(lambda t: t, LAWS["mask"]).bridge(0.5, 0.3), "alpha must fall"),
        (wrong_vocabulary, "take logits"),
    ],
)
def test_what_makes_no_sense_is_refused(bad, match):
    with pytest.raises(InputError, match=match):
        bad()
