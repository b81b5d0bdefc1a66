"""Data of several parts, and networks that see what they said before."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Categorical, Gaussian, draw
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import (
    analog_bits,
    guidance,
    losses,
    losses_discrete,
    parameterizations,
    processes,
    samplers,
    schedules,
    timesteps,
)

pytestmark = pytest.mark.slow

SCHEDULE = schedules.vp_linear()
NOISE = processes.gaussian(SCHEDULE)
TIME = parameterizations.thousandths
MEMORY = processes.self_conditioned(NOISE)

# ---- An image of one pixel and its label: label 0 with probability 0.7 and pixel +1, else label 1 and pixel -1.

P, MASK = np.array([0.7, 0.3]), 2
BOTH = processes.product(image=NOISE, label=processes.masked(processes.linear_alpha, 3, MASK))
ENDS = samplers.each_its_own(image=samplers.on_mean, label=draw)


def exact(x, t):
    """p(image, label | both as they are now), each part's own marginal."""
    image, label = x["image"][:, 0, 0, 0], x["label"]
    alpha, sigma = SCHEDULE.alpha(t), SCHEDULE.sigma(t)
    log_odds = jnp.stack([-((image - alpha) ** 2), -((image + alpha) ** 2)], -1) / (2 * sigma**2) + jnp.log(P)
    log_odds = jnp.where(
        (label == MASK)[:, None], log_odds, jnp.where(label[:, None] == jnp.arange(2), 0.0, -jnp.inf)
    )
    p = jax.nn.softmax(log_odds)
    mean = (p[:, 0] - p[:, 1]).reshape(-1, 1, 1, 1)
    logits = jnp.concatenate([jnp.log(p), jnp.full((len(p), 1), -jnp.inf)], -1)
    return {"image": Gaussian(mean, 1 - mean**2), "label": Categorical(logits)}


@pytest.mark.exhaustive
def test_an_image_and_its_label_are_drawn_together():
    """400 steps, 4000 pairs, seed 0: the shares within 5 standard errors (6e-7), and the pairs agree.

    Control: a denoiser of the image that is never told the label draws pairs that disagree.
    """

    def drawn(denoise):
        keys = jax.random.split(jax.random.key(0), 4000)
        prior = jax.vmap(lambda key: BOTH.prior(key, {"image": (1, 1, 1), "label": ()}))(keys)
        sampler = samplers.ancestral(BOTH, ENDS)
        return jax.jit(lambda x: samplers.solve(sampler, timesteps.linear(400), denoise, x, keys))(prior)

    pairs = drawn(exact)
    image, label = np.asarray(pairs["image"]).ravel(), np.asarray(pairs["label"])
    assert set(label) == {0, 1}
    np.testing.assert_allclose(np.abs(image), 1, atol=0.01)
    assert abs((label == 0).mean() - 0.7) < 5 * (0.21 / 4000) ** 0.5
    agree = ((image > 0) == (label == 0)).mean()

    def apart(x, t):
        blind = exact(x | {"label": jnp.full_like(x["label"], MASK)}, t)
        alone = exact(x | {"image": jnp.zeros_like(x["image"])}, t)
        return {"image": blind["image"], "label": alone["label"]}

    pairs = drawn(apart)
    by_chance = ((np.asarray(pairs["image"]).ravel() > 0) == (np.asarray(pairs["label"]) == 0)).mean()
    assert agree > 0.98  # both are decided in the same step now and then, each by itself
    assert by_chance < 0.65


def test_the_parts_of_a_loss_add_up():
    image, label = parameterizations.eps(SCHEDULE, TIME), parameterizations.substitution(MASK, TIME)
    parts = {"image": losses.squared_error(image), "label": losses_discrete.surprise(label)}
    keys, t = jax.random.split(jax.random.key(0), 5), jnp.linspace(0.2, 1.0, 5)
    x0 = {"image": jnp.ones((5, 2, 2, 1)), "label": jnp.array([0, 1, 0, 1, 0])}

    def apply(params, x, time, dropout_keys):
        assert time.shape == (5,)
        return {"image": params * x["image"], "label": params * jnp.ones((5, 3))}

    joint = parameterizations.joint(TIME, image=image, label=label)

    def value(criterion):
        return losses.integrand(losses.of_criterion(criterion, apply, joint, BOTH))(keys, 0.5, x0, t)

    def only(name):
        return lambda output, x0, noise, x_t, t: parts[name](output[name], x0[name], noise[name], x_t[name], t)

    both = value(losses.joint(**parts))
    np.testing.assert_allclose(both, value(only("image")) + value(only("label")), rtol=1e-6)
    assert both.shape == (5,)
    assert both.min() > 0


def test_a_transform_of_one_part_leaves_the_others_alone():
    def denoise(x, t):
        return {"image": Gaussian(5 * jnp.ones((2, 1))), "label": Categorical(jnp.zeros((2, 3)))}

    clipped = guidance.part("image", guidance.clip())(denoise)({"image": 0, "label": 0}, 0.5)
    np.testing.assert_array_equal(clipped["image"].mean, 1)
    np.testing.assert_array_equal(clipped["label"].logits, 0)


def test_estimates_of_other_parts_are_refused():
    x = {"image": jnp.zeros((2, 1)), "label": jnp.zeros(2, int)}
    with pytest.raises(InputError, match=r"joins image, label, not image$"):
        BOTH.bridge(0.5, 0.4)({"image": Gaussian(x["image"])}, x)


@pytest.mark.parametrize(
    "process", [processes.masked(processes.linear_alpha, 3, MASK), MEMORY], ids=["tokens", "parts"]
)
def test_what_has_no_mean_does_not_end_on_it(process):
    def denoise(x, t):
        return Gaussian(x["x"]) if isinstance(x, dict) else Categorical(jnp.zeros((*x.shape, 3)))

    with pytest.raises(InputError, match=r"has no mean for a chain to end on: give .* end=draw"):
        walk(process, samplers.ancestral(process), denoise, steps=2)


# ---- Self-conditioning.

STATE_ENDS = samplers.each_its_own(x=samplers.on_mean, estimate=samplers.on_mean)


def walk(process, sampler, denoise, steps, batch=3):
    keys = jax.random.split(jax.random.key(4), batch)
    prior = jax.vmap(lambda key: process.prior(key, (2, 2, 1)))(keys)
    return samplers.solve(sampler, timesteps.linear(steps), denoise, prior, keys)


def test_a_network_sees_what_it_said_in_the_step_before():
    def counting(state, t):
        return Gaussian(state["estimate"] + 1)

    end = walk(MEMORY, samplers.ancestral(MEMORY, STATE_ENDS), counting, steps=7)
    np.testing.assert_array_equal(end["estimate"], 7)
    np.testing.assert_allclose(end["x"], 7, rtol=1e-6)


def test_a_network_that_does_not_look_at_it_draws_as_before():
    """DDIM's deterministic bridge, in which no keys are at work."""
    straight = processes.gaussian(SCHEDULE, processes.ddim(0.0))
    memory = processes.self_conditioned(straight)
    plain = walk(straight, samplers.ancestral(straight), lambda x, t: Gaussian(jnp.tanh(x)), steps=5)
    with_memory = walk(
        memory, samplers.ancestral(memory, STATE_ENDS), lambda x, t: Gaussian(jnp.tanh(x["x"])), steps=5
    )
    np.testing.assert_allclose(with_memory["x"], plain, rtol=1e-6)


def test_training_shows_a_share_of_the_examples_what_was_said():
    base = parameterizations.x0(TIME)
    read = parameterizations.self_conditioned(base)
    keys, t = jax.random.split(jax.random.key(0), 400), jnp.full(400, 0.5)
    x0 = jnp.zeros((400, 1, 1, 1))

    def apply(params, x, time, dropout_keys):
        return params + 2 * x[..., 1:]  # 1 at first; 3 when it is told that it said 1

    def said(share, params=1.0):
        loss = losses.self_conditioned(losses.squared_error(base), apply, read, MEMORY, share)
        return losses.integrand(loss)(keys, params, x0, t)

    np.testing.assert_array_equal(said(0.0), 1)
    np.testing.assert_array_equal(said(1.0), 9)
    told = float((said(0.5) == 9).mean())
    assert abs(told - 0.5) < 5 * (0.25 / 400) ** 0.5  # seed 0; a false alarm in 10^6
    # What was said is a constant: d/dp (p + 2 q)^2 at p = q = 1 is 2 * 3, not 2 * 3 * 3.
    slope = jax.grad(lambda params: said(1.0, params).mean())(1.0)
    np.testing.assert_allclose(slope, 6.0, rtol=1e-6)


# ---- Analog bits.


def test_numbers_come_back_from_their_bits():
    x = jnp.arange(32).reshape(4, 8)
    bits = analog_bits.encode(x, 5)
    assert bits.shape == (4, 8, 5)
    assert set(np.unique(bits)) == {-1, 1}
    np.testing.assert_array_equal(analog_bits.decode(bits), x)
    np.testing.assert_array_equal(analog_bits.decode(0.1 * bits), x)
    np.testing.assert_array_equal(bits[2, 3], [1, -1, -1, 1, 1])  # 19
    with pytest.raises(InputError, match="1 to 31 bits"):
        analog_bits.encode(x, 0)
