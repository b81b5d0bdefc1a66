"""Guidance, on a mixture whose classifier, conditional and unconditional denoisers are known in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.distributions import Categorical, Gaussian, Interpolated
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import gaussian, guidance, parameterizations, processes, samplers, schedules, timesteps

pytestmark = pytest.mark.usefixtures("x64")

# ---- Three modes in the plane and two labels: label 0 is modes 0 and 2, label 1 is mode 1, label 2 tells nothing.

WEIGHTS, WIDTH, NONE = np.array([0.5, 0.3, 0.2]), 0.3, 2
CENTRES = np.array([[-1.0, 0.5], [1.5, -0.5], [0.5, 2.0]])
OF_LABEL = np.array([[1, 0, 1], [0, 1, 0], [1, 1, 1]], bool)
SCHEDULE = schedules.vp_linear()
PROCESS = processes.gaussian(SCHEDULE)
TIMES = [1e-4, 0.02, 0.2, 0.5, 0.8, 0.999, 1.0]
NULL = guidance.replacing(label=NONE)


compiled = functools.partial(jax.jit, static_argnames="schedule")  # entry by entry the operations would each compile


def levels(x, t, schedule=SCHEDULE):
    """log p(mode, x_t) up to a constant, [B, 3], and E[x0 | mode, x_t], [B, 3, 2]."""
    alpha, sigma = expand(schedule.alpha(t), x), expand(schedule.sigma(t), x)
    total = alpha**2 * WIDTH**2 + sigma**2
    alpha, share = alpha[..., None], (alpha / total)[..., None]
    weights, centres = jnp.asarray(WEIGHTS), jnp.asarray(CENTRES)
    gap = x[:, None] - alpha * centres
    return jnp.log(weights) - (gap**2).sum(-1) / (2 * total), centres + share * WIDTH**2 * gap


@compiled
def denoise(x, t, cond, schedule=SCHEDULE):
    log_joint, means = levels(x, t, schedule)
    share = jax.nn.softmax(jnp.where(jnp.asarray(OF_LABEL)[cond["label"]], log_joint, -jnp.inf))
    return Gaussian(jnp.sum(share[..., None] * means, axis=1))


@compiled
def log_prob(x, t, label, schedule=SCHEDULE):
    log_joint, _ = levels(x, t, schedule)
    said = jnp.where(jnp.asarray(OF_LABEL)[label], log_joint, -jnp.inf)
    return jax.nn.logsumexp(said, axis=-1) - jax.nn.logsumexp(log_joint, axis=-1)


def points(num=6, seed=0):
    """x_t [num, 2] wherever the modes are, and a condition with both labels."""
    x = 1.5 * np.random.default_rng(seed).normal(size=(num, 2))
    return jnp.asarray(x), {"label": jnp.arange(num) % 2}


def means(x, cond, t):
    """The conditional and the unconditional mean."""
    return denoise(x, t, cond).mean, denoise(x, t, {"label": jnp.full(len(x), NONE)}).mean


# ---- A classifier.


@pytest.mark.parametrize("schedule", [SCHEDULE, schedules.flow(), schedules.edm(10.0)], ids=["vp", "flow", "edm"])
def test_the_true_classifier_makes_the_unconditional_denoiser_conditional(schedule):
    x, cond = points()
    unconditional = guidance.conditioned(
        lambda *told: denoise(*told, schedule=schedule), {"label": jnp.full(len(x), NONE)}
    )
    guide = guidance.classifier(schedule, lambda x, t: log_prob(x, t, cond["label"], schedule=schedule))
    guided = jax.jit(guide(unconditional))
    far = 0.0
    for t in [*TIMES[:-1], np.linspace(0.1, 0.9, len(x))]:
        t = jnp.asarray(t)
        want = denoise(x, t, cond, schedule).mean
        np.testing.assert_allclose(guided(x, t).mean, want, rtol=1e-8, atol=1e-9)
        far = max(far, np.abs(unconditional(x, t).mean - want).max())
    assert far > 1  # control: without the classifier they are far apart


def test_nothing_is_added_where_nothing_is_left_of_the_data():
    x, cond = points()
    cosine = schedules.cosine()
    plain = guidance.conditioned(lambda *told: denoise(*told, schedule=cosine), cond)
    guided = guidance.classifier(cosine, lambda x, t: log_prob(x, t, cond["label"], schedule=cosine))(plain)
    np.testing.assert_array_equal(guided(x, np.array(1.0)).mean, plain(x, np.array(1.0)).mean)


def test_a_classifier_in_ddim_is_algorithm_2():
    """Dhariwal & Nichol 2021, in eps, line by line, at a scale of 2.5 and at one scale an example."""
    x, cond = points()
    t, s = 0.6, 0.4
    slope = jax.jit(jax.grad(lambda x: log_prob(x, t, cond["label"]).sum()))(x)
    plain = guidance.conditioned(denoise, {"label": jnp.full(len(x), NONE)})
    keys = jax.random.split(jax.random.key(0), len(x))
    for scale in (2.5, jnp.linspace(0, 3, len(x))):
        eps = gaussian.eps_from_x0(SCHEDULE, x, plain(x, t).mean, t)
        eps = eps - expand(scale, x) * SCHEDULE.sigma(t) * slope
        x0 = (x - SCHEDULE.sigma(t) * eps) / SCHEDULE.alpha(t)
        want = SCHEDULE.alpha(s) * x0 + SCHEDULE.sigma(s) * eps
        guided = guidance.classifier(SCHEDULE, lambda x, t: log_prob(x, t, cond["label"]), scale)(plain)
        got = jax.jit(lambda x, g=guided: samplers.solve(samplers.euler(SCHEDULE), [t, s], g, x, keys))(x)
        np.testing.assert_allclose(got, want, rtol=1e-9)


@pytest.mark.parametrize("spread", ["posterior", "learned"])
def test_a_classifier_in_ddpm_is_algorithm_1(spread):
    """mean + scale Sigma grad log p(y | x_t), Sigma the kernel's own, in each slice of a grid of bridges."""
    x, cond = points()
    grid = np.array([0.9, 0.5, 0.2, 0.0])
    slope = guidance.gradient(lambda x, t: log_prob(x, t, cond["label"]))
    scale = jnp.linspace(0.5, 3, len(x))
    moved = processes.pushed(PROCESS, slope, scale).bridge(grid[:-1], grid[1:])
    for n, t in enumerate(grid[:-1]):
        mean = denoise(x, t, cond).mean
        estimate = Gaussian(mean) if spread == "posterior" else Interpolated(mean, 0.3 + 0 * x, 0.5, 1e-4)
        kernel = PROCESS.bridge(t, grid[n + 1])(estimate, x)
        got = jax.tree.map(lambda a, n=n: a[n], moved)(estimate, x)
        np.testing.assert_allclose(got.mean, kernel.mean + scale[:, None] * kernel.var * slope(x, t), rtol=1e-12)
        np.testing.assert_array_equal(got.var, kernel.var)


CHAINS = {
    "ddim": lambda slope, log_p: (samplers.euler(SCHEDULE), guidance.classifier(SCHEDULE, log_p)),
    "ddpm, in x0": lambda slope, log_p: (samplers.ancestral(PROCESS), guidance.classifier(SCHEDULE, log_p)),
    "ddpm": lambda slope, log_p: (samplers.ancestral(processes.pushed(PROCESS, slope)), lambda denoise: denoise),
}


@pytest.mark.parametrize("make", CHAINS.values(), ids=CHAINS)
def test_the_chains_of_a_classifier_draw_the_conditional_law(make):
    """200 steps, 5000 draws of label 0, seed 0: modes 0 and 2 in shares 5/7 and 2/7, none of mode 1.

    Bounds of 4.9 standard errors (a false alarm in 10^6 each) and, for the steps, .01 of the share, .02 of the mean
    and 5 % of the variance within mode 0. Control: without the classifier 3 in 10 lie in mode 1.
    """
    num, grid = 5000, timesteps.log_snr(SCHEDULE, 200)
    label = jnp.zeros(num, jnp.int32)

    def log_p(x, t):
        return log_prob(x, t, label)

    def drawn(sampler, transform):
        plain = guidance.conditioned(denoise, {"label": jnp.full(num, NONE)})
        x = jax.random.normal(jax.random.key(1), (num, 2))
        keys = jax.random.split(jax.random.key(0), num)
        walk = jax.jit(lambda x: samplers.solve(sampler, grid, transform(plain), x, keys))
        x = np.asarray(walk(x))
        mode = ((x[:, None] - CENTRES) ** 2).sum(-1).argmin(1)
        return x, np.bincount(mode, minlength=3) / num, x[mode == 0]

    _, share, first = drawn(*make(guidance.gradient(log_p), log_p))
    print(share, first.mean(0) - CENTRES[0], (first - first.mean(0)).var() / WIDTH**2)
    assert share[1] < 0.003  # Gaussians that reach over: 10^-4 of them
    assert abs(share[0] - 5 / 7) < 4.9 * (5 / 7 * 2 / 7 / num) ** 0.5 + 0.01
    assert np.abs(first.mean(0) - CENTRES[0]).max() < 4.9 * WIDTH / len(first) ** 0.5 + 0.02
    assert abs((first - first.mean(0)).var() / WIDTH**2 - 1) < 4.9 * len(first) ** -0.5 + 0.05
    if make is CHAINS["ddpm"]:
        assert drawn(samplers.ancestral(PROCESS), lambda denoise: denoise)[1][1] > 0.25


def test_only_the_classifier_is_differentiated():
    @jax.custom_jvp
    def opaque(x):
        return x

    @opaque.defjvp
    def _(primals, tangents):
        raise AssertionError("the network was differentiated")

    x, cond = points()
    network = lambda x, t: Gaussian(opaque(x))  # noqa: E731
    guidance.classifier(SCHEDULE, lambda x, t: log_prob(x, t, cond["label"]))(network)(x, 0.5)
    with pytest.raises(AssertionError):
        jax.grad(lambda x: network(x, 0.5).mean.sum())(x)


# ---- Without a classifier.


def test_classifier_free_guidance_is_the_extrapolation_in_x0_and_in_eps():
    x, cond = points()
    guided = jax.jit(lambda t, scale: guidance.classifier_free(NULL, scale)(denoise, cond)(x, t))
    for t in [*map(jnp.asarray, TIMES), jnp.linspace(0.1, 0.9, len(x))]:
        c, u = means(x, cond, t)
        for scale, want in ((1.0, c), (0.0, u), (2.0, 2 * c - u), (7.5, u + 7.5 * (c - u)), (-1.0, 2 * u - c)):
            got = guided(t, scale)
            np.testing.assert_allclose(got.mean, want, rtol=1e-10, atol=1e-12)
            eps_c, eps_u = (gaussian.eps_from_x0(SCHEDULE, x, m, t) for m in (c, u))
            eps = eps_u + scale * (eps_c - eps_u)
            np.testing.assert_allclose(gaussian.eps_from_x0(SCHEDULE, x, got.mean, t), eps, rtol=1e-7, atol=1e-8)


def test_one_call_of_the_network_on_the_batch_twice_over():
    seen = []

    def network(x, t, cond):
        seen.append((x.shape, jnp.shape(t), cond["label"].tolist(), cond["tokens"].shape))
        return Gaussian(x + cond["label"][:, None])

    x, cond = points(4)
    cond = cond | {"tokens": jnp.ones((4, 3, 5))}
    null = guidance.replacing(label=NONE, tokens=np.zeros((3, 5)))
    for t in (0.3, jnp.full(4, 0.3)):
        guidance.classifier_free(null, 3.0)(network, cond)(x, t)
    told = [0, 1, 0, 1, 2, 2, 2, 2]
    assert seen == [((8, 2), (), told, (8, 3, 5)), ((8, 2), (8,), told, (8, 3, 5))]


def test_everything_an_estimate_shares_survives_the_halving():
    """Numbers, entries that all examples share, and as many channels as there are examples in both halves."""
    x, cond = jnp.zeros((2, 3, 4)), {"label": jnp.arange(2)}
    each = jnp.arange(4.0)

    def network(x, t, cond, var):
        return Gaussian(cond["label"][:, None, None] + x, var)

    for var, want in ((0.0, 0.0), (each, each), (each[None, None], each[None, None])):
        got = guidance.classifier_free(NULL, 2.0)(lambda *told: network(*told, var), cond)(x, 0.5)  # noqa: B023
        np.testing.assert_array_equal(got.mean[:, 0, 0], [0 - 2, 2 - 2])
        np.testing.assert_array_equal(got.var, want)
    got = guidance.classifier_free(NULL, 2.0)(lambda *told: network(*told, each[:, None, None]), cond)(x, 0.5)
    np.testing.assert_array_equal(got.var, each[:2, None, None])  # the conditional half's


def test_a_learned_variance_is_the_conditional_one():
    x, cond = points(4)

    def network(x, t, cond):
        told = cond["label"][:, None] * jnp.ones_like(x)
        return Interpolated(told, told / 10, expand(jnp.broadcast_to(t, len(x)), x), 1e-4)

    got = guidance.classifier_free(NULL, 3.0)(network, cond)(x, 0.5)
    told = cond["label"][:, None] * jnp.ones((4, 2))
    np.testing.assert_allclose(got.mean, 2 + 3 * (told - 2))
    np.testing.assert_array_equal(got.fraction, told / 10)
    np.testing.assert_array_equal(got.widest, np.full((4, 1), 0.5))
    assert got.narrowest == 1e-4


def laws():
    """Two laws of three tokens of five; some have no probability under one, the other or both."""
    logits = np.random.default_rng(0).normal(size=(2, 3, 5))
    logits[:, 0, 1] = -np.inf
    logits[0, 1, 2] = -np.inf
    logits[1, 1, 3] = -np.inf
    return Categorical(jnp.asarray(logits[:1])), Categorical(jnp.asarray(logits[1:]))


@pytest.mark.parametrize("scale", [0.0, 0.4, 1.0, 2.0])
def test_tokens_are_guided_in_log_probabilities(scale):
    p, q = laws()
    got = jax.jit(lambda p, q: jax.nn.softmax(p.guided(q, scale).logits))(p, q)
    a, b = np.asarray(jax.nn.softmax(p.logits)), np.asarray(jax.nn.softmax(q.logits))
    both = (a > 0) & (b > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        want = np.where(both, a**scale * b ** (1 - scale), 0.0)
    if scale == 0:
        want = b
    elif scale >= 1:
        want = np.where((a > 0) & (b == 0), a, want)  # no power of 0 that is infinite
    np.testing.assert_allclose(got, want / want.sum(-1, keepdims=True), rtol=1e-12)
    slope = jax.grad(lambda p, q, g: jax.nn.softmax(p.guided(q, g).logits)[..., 0].sum(), (0, 1, 2))
    slopes = jax.jit(slope)(p, q, scale)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(slopes))


def test_parts_are_guided_each_in_its_own_way():
    x = {"image": jnp.ones((2, 3)), "label": jnp.zeros((2, 4), jnp.int32)}
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(3, 4, 5)))

    def network(x, t, cond):
        told = cond["label"]
        image = Gaussian(x["image"] * told[:, None], 0.5)
        return {"image": image, "label": Categorical(logits[told] + 0.0 * x["label"][..., None])}

    cond = {"label": jnp.array([1, 0])}
    scale = jnp.array([3.0, 0.5])
    got = jax.jit(lambda x: guidance.classifier_free(NULL, scale)(network, cond)(x, 0.5))(x)
    np.testing.assert_allclose(got["image"].mean, np.array([2 - 3, 2 - 1])[:, None] * np.ones((2, 3)))
    assert got["image"].var == 0.5
    log_p = jax.nn.log_softmax(logits)
    want = np.array([3 * log_p[1] - 2 * log_p[2], 0.5 * log_p[0] + 0.5 * log_p[2]])
    np.testing.assert_allclose(got["label"].logits, want, rtol=1e-9)


def test_autoguidance_is_away_from_the_weaker_model():
    x, cond = points()
    weaker = lambda x, t, *cond: Gaussian(0.8 * denoise(x, t, *cond).mean + 0.1)  # noqa: E731
    strong = denoise(x, 0.4, cond).mean
    got = guidance.autoguidance(weaker, 1.7)(denoise, cond)(x, 0.4)
    np.testing.assert_allclose(got.mean, (0.8 * strong + 0.1) + 1.7 * (0.2 * strong - 0.1), rtol=1e-12)
    # Classifier-free guidance is autoguidance by oneself, uninformed.
    uninformed = lambda x, t, cond: denoise(x, t, {"label": jnp.full(len(x), NONE)})  # noqa: E731
    got = guidance.autoguidance(uninformed, 3.0)(denoise, cond)(x, 0.4)
    want = guidance.classifier_free(NULL, 3.0)(denoise, cond)(x, 0.4)
    np.testing.assert_allclose(got.mean, want.mean, rtol=1e-12)
    # And it needs no condition.
    blind = guidance.autoguidance(lambda x, t: Gaussian(0.5 * x), 2.0)(lambda x, t: Gaussian(x))
    np.testing.assert_allclose(blind(x, 0.4).mean, 1.5 * x)


# ---- Scales.


def test_scales_of_each_example_are_those_of_separate_calls():
    x, cond = points()
    scale = jnp.linspace(-1, 8, len(x))
    together = guidance.classifier_free(NULL, scale)(denoise, cond)(x, 0.4)
    for i in range(len(x)):
        one = guidance.classifier_free(NULL, float(scale[i]))(denoise, {"label": np.array([i % 2])})
        np.testing.assert_allclose(together.mean[i], one(x[i : i + 1], 0.4).mean[0], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", [5.0, 2 + jnp.arange(6.0), lambda t: 9 * t], ids=["one", "each", "of t"])
def test_outside_of_the_interval_it_is_exactly_the_conditional_estimate(scale):
    x, cond = points()
    guide = guidance.classifier_free(NULL, guidance.within(scale, 0.2, 0.6))
    guided = jax.jit(lambda t: guide(denoise, cond)(x, t).mean)
    plain = jax.jit(lambda t: guidance.classifier_free(NULL, 1.0)(denoise, cond)(x, t).mean)
    whole = jax.jit(lambda t: guidance.classifier_free(NULL, scale)(denoise, cond)(x, t).mean)
    for t, inside in ((0.1, False), (0.2, False), (0.21, True), (0.6, True), (0.61, False), (1.0, False)):
        np.testing.assert_array_equal(guided(t), (whole if inside else plain)(t))
        assert inside == (np.abs(guided(t) - plain(t)).max() > 0.01)
    # Times of each example: some inside, some outside.
    t = jnp.array([0.1, 0.3, 0.7, 0.6, 0.2, 0.5])
    inside = np.array([False, True, False, True, False, True])
    np.testing.assert_array_equal(guided(t), np.where(inside[:, None], whole(t), plain(t)))


def test_scale_1_is_the_conditional_estimate_to_the_last_bit():
    x, cond = points(64)
    twice = jax.tree.map(lambda a: jnp.concatenate([a, a]), (x, cond))
    want = denoise(twice[0], 0.3, twice[1]).mean[:64]
    np.testing.assert_array_equal(guidance.classifier_free(NULL, 1.0)(denoise, cond)(x, 0.3).mean, want)


@pytest.mark.parametrize("scale", [4.0, jnp.array([4.0, 0.0]), lambda t: 8 * t], ids=["one", "each", "of t"])
def test_some_channels_are_guided(scale):
    """DiT: 3 of 4; alone, and inside of an interval."""
    x, cond = jnp.ones((2, 2, 2, 4)), {"label": jnp.array([0, 1])}
    network = lambda x, t, cond: Gaussian(x * cond["label"][:, None, None, None])  # noqa: E731
    g = np.broadcast_to(scale(0.5) if callable(scale) else scale, 2)
    some = guidance.channels(scale, 3, 4)
    for made in (some, guidance.within(some, 0.0, 0.5), guidance.channels(guidance.within(scale, 0.0, 0.5), 3, 4)):
        got = jax.jit(lambda x, made=made: guidance.classifier_free(NULL, made)(network, cond)(x, 0.5))(x).mean
        for i, label in enumerate((0, 1)):
            np.testing.assert_allclose(got[i, ..., :3], 2 + g[i] * (label - 2))
            np.testing.assert_array_equal(got[i, ..., 3], label)
    outside = guidance.classifier_free(NULL, guidance.within(some, 0.0, 0.4))(network, cond)(x, jnp.full(2, 0.5))
    np.testing.assert_array_equal(outside.mean, network(x, 0.5, cond).mean)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_estimates_keep_their_dtype(dtype):
    """Whatever that of the scale, and integer labels given as NumPy's."""
    with jax.enable_x64(False):
        x, cond = jnp.ones((2, 3), dtype), {"label": np.array([0, 1])}
        network = lambda x, t, cond: Gaussian(x * cond["label"][:, None].astype(dtype))  # noqa: E731
        for scale in (2.0, jnp.array([2.0, 3.0]), guidance.within(2.0, 0.1, 0.9)):
            got = guidance.classifier_free(NULL, scale)(network, cond)(x, jnp.asarray(0.5)).mean
            assert got.dtype == dtype
            np.testing.assert_array_equal(got[0], -2.0)
        logits = Categorical(jnp.zeros((2, 3, 4), dtype))
        assert logits.guided(logits, jnp.array([2.0, 3.0])).logits.dtype == dtype


# ---- Rescaling.

SPACES = {
    "x0": (guidance.rescaled_x0, lambda x_t, x0, t: x0),
    "eps": (lambda phi: guidance.rescaled_eps(SCHEDULE, phi), lambda *at: gaussian.eps_from_x0(SCHEDULE, *at)),
    "v": (
        lambda phi: guidance.rescaled_v(SCHEDULE, phi),
        lambda x_t, x0, t: gaussian.v_from_x0(SCHEDULE, x0, gaussian.eps_from_x0(SCHEDULE, x_t, x0, t), t),
    ),
}


@pytest.mark.parametrize("space", SPACES)
def test_rescaling_is_equations_15_and_16_in_the_networks_own_space(space):
    make, prediction = SPACES[space]
    x, c, u = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 4, 5)))
    t = jnp.array([0.2, 0.5, 0.8])
    strong, weak = lambda x, t: Gaussian(c), lambda x, t: Gaussian(u)
    guided = prediction(x, u + 6 * (c - u), t)
    wanted = np.std(prediction(x, c, t), axis=(1, 2), keepdims=True)
    for phi in (0.0, 0.7, 1.0):
        got = prediction(x, guidance.autoguidance(weak, 6.0, make(phi))(strong)(x, t).mean, t)
        want = phi * guided * wanted / np.std(guided, axis=(1, 2), keepdims=True) + (1 - phi) * guided
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(np.std(got, axis=(1, 2), keepdims=True), wanted, rtol=1e-9)  # phi = 1


def test_a_prediction_without_spread_is_left_alone():
    flat, other = Gaussian(jnp.ones((2, 1))), Gaussian(3 * jnp.ones((2, 1)))
    got = guidance.rescaled_x0(0.7)(flat, other, flat.mean, 0.5)
    np.testing.assert_array_equal(got.mean, flat.mean)


# ---- Thresholds.


def test_dynamic_thresholds_are_each_examples_own():
    x0 = jnp.array([[-0.5, 0.2, 0.1, 0.9], [-3.0, 2.0, 1.0, 0.0], [-10.0, 8.0, 4.0, 0.0]])

    def at(**settings):
        return guidance.dynamic_threshold(**settings)(lambda x, t: Gaussian(x, 0.3))(x0, 0.5)

    np.testing.assert_allclose(at(percentile=1.0).mean, x0 / jnp.array([[1.0], [3.0], [10.0]]))
    # The median of |x0| is 1.5 in the second, 6 in the third.
    want = [[-0.5, 0.2, 0.1, 0.9], [-1, 1, 1 / 1.5, 0], [-1, 1, 4 / 6, 0]]
    np.testing.assert_allclose(at(percentile=0.5).mean, want, rtol=1e-6)
    np.testing.assert_allclose(at(percentile=0.5, largest=2.0).mean[2], [-1, 1, 1, 0], rtol=1e-6)
    plain = guidance.clip()(lambda x, t: Gaussian(x, 0.3))(x0, 0.5)
    np.testing.assert_allclose(at(largest=1.0).mean, plain.mean)
    assert at().var == 0.3


# ---- All together, and mistakes.


def test_a_guided_chain_is_one_pure_function():
    """With per-example scales given when it is called, and one trace of the network."""
    traces = []

    def apply(params, x, time, cond):
        traces.append(x.shape)
        return params * jnp.tanh(x + cond["label"][:, None] - time[:, None] / 1000)

    def sample_fn(guide):
        return samplers.make_sample_fn(
            apply,
            parameterizations.x0(parameterizations.thousandths),
            PROCESS,
            samplers.ancestral(PROCESS),
            timesteps.linear(30),
            4,
            (2,),
            transforms=[guidance.clip()],
            guide=guide,
        )

    cond = {"label": jnp.arange(4) % 2}
    scale = jnp.array([0.0, 1.0, 2.0, 4.0])

    @jax.jit
    def guided(scale):
        return sample_fn(guidance.classifier_free(NULL, scale))(0.9, jax.random.key(0), cond)

    got = guided(scale)
    assert traces == [(8, 2)]
    plain = jax.jit(sample_fn(guidance.conditioned))(0.9, jax.random.key(0), cond)
    np.testing.assert_allclose(got[1], plain[1], rtol=1e-4, atol=1e-5)
    unconditional = jax.jit(sample_fn(guidance.conditioned))(0.9, jax.random.key(0), {"label": jnp.full(4, NONE)})
    np.testing.assert_allclose(got[0], unconditional[0], rtol=1e-4, atol=1e-5)
    assert np.abs(got - plain).max() > 0.05


X, COND = jnp.zeros((3, 2)), {"label": jnp.zeros(3, jnp.int32)}


def apply_guide(null=NULL, scale=2.0, cond=COND):
    return guidance.classifier_free(null, scale)(denoise, *([] if cond is None else [cond]))(X, 0.5)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: apply_guide(scale=jnp.ones(4)),
        lambda: apply_guide(scale=jnp.ones((3, 1, 1))),
        lambda: apply_guide(scale=jnp.ones((1, 5))),
        lambda: apply_guide(scale=lambda t: jnp.ones(2)),
        lambda: apply_guide(cond=None),
        lambda: apply_guide(cond={}),
        lambda: apply_guide(null=lambda cond: {}),
        lambda: apply_guide(null=guidance.replacing(labels=3)),
        lambda: apply_guide(null=guidance.replacing(label=jnp.zeros(2))),
        lambda: guidance.within(2.0, 0.5, 0.5),
        lambda: guidance.within(2.0, -0.1, 0.5),
        lambda: guidance.within(2.0, 0.1, 1.5),
        lambda: guidance.channels(2.0, 0, 4),
        lambda: guidance.channels(2.0, 5, 4),
        lambda: guidance.rescaled_x0(1.5),
        lambda: guidance.rescaled_eps(SCHEDULE, -0.1),
        lambda: guidance.dynamic_threshold(0.0),
        lambda: guidance.dynamic_threshold(1.01),
        lambda: guidance.dynamic_threshold(0.9, largest=0.5),
        lambda: guidance.gradient(lambda x, t: x)(X, 0.5),
        lambda: guidance.gradient(lambda x, t: x.sum())(X, 0.5),
        lambda: processes.pushed(PROCESS, lambda x, t: x, jnp.ones(2)).bridge(0.5, 0.2)(Gaussian(X), X),
    ],
)
def test_mistakes_are_told_in_one_line(mistake):
    with pytest.raises(InputError) as error:
        mistake()
    assert "\n" not in str(error.value)
