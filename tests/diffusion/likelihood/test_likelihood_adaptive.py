"""The density to a tolerance, against laws whose density is known, and against score_sde's way of solving it."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError, NotFiniteError
from diffusion_jax.diffusion import likelihood, parameterizations, schedules
from diffusion_jax.diffusion.likelihood import (
    ENDINGS,
    adaptive,
    adaptive_likelihood,
    exact_trace,
    flow_times,
    ode_likelihood,
)
from diffusion_jax.diffusion.likelihood.runge_kutta import DOPRI5
from tests.diffusion.likelihood.test_likelihood_flow import (
    COVARIANCES,
    LEVEL,
    MEANS,
    PARTS,
    PLANE,
    SCHEDULES,
    X,
    gaussian_data,
    log_parts,
    plane,
    pushed_forward,
)

pytestmark = pytest.mark.slow


def by_example(denoise):
    """`denoise` for times [B]."""

    def each(x, t):
        means = jax.vmap(lambda x, t: denoise(x[None], t).mean[0])(x, jnp.broadcast_to(t, len(x)))
        return Gaussian(means)

    return each


def solved(denoise, schedule, x, tolerance, times=None, dtype=jnp.float64, **options):
    times = flow_times(schedule, 1, LEVEL) if times is None else times
    keys = jax.random.split(jax.random.key(0), len(x))
    options = {"trace": exact_trace()} | options
    solve = jax.jit(
        lambda x: adaptive_likelihood(by_example(denoise), schedule, times, x, keys, tolerance, **options)
    )
    return solve(jnp.asarray(x, dtype))


# ---- What is found, and the error that is said.


@pytest.mark.parametrize("name", ["vp", "flow", "edm"])
def test_the_closed_form_is_found_to_the_tolerance(x64, name):
    schedule = SCHEDULES[name]
    times = flow_times(schedule, 1, LEVEL)
    found = adaptive.check_arrived(solved(gaussian_data(schedule), schedule, X, 1e-7))
    log_prob, latent = pushed_forward(schedule, times)
    np.testing.assert_allclose(found.log_prob, log_prob, atol=1e-7)
    np.testing.assert_allclose(found.latent, latent, rtol=1e-7)
    assert (np.abs(found.log_prob - log_prob) <= found.error).all()
    assert (found.error <= 2e-7).all()


def test_two_modes_in_the_plane_and_a_control(x64):
    """The error that is said is between what is found and the tolerance. Control: a pair that sees no error."""
    schedule = SCHEDULES["flow"]
    logs, _ = log_parts(jnp.asarray(PLANE), MEANS, COVARIANCES + LEVEL**2 * np.eye(2))
    want = jax.nn.logsumexp(logs + np.log(PARTS), axis=-1)
    counts = []
    for tolerance in (1e-4, 1e-6):
        found = solved(plane(schedule), schedule, PLANE, tolerance)
        wrong = np.abs(found.log_prob - want)
        assert (wrong <= found.error).all()
        assert (found.error <= 2 * tolerance).all()
        counts.append(found.evaluations.mean())
    assert 1.5 < counts[1] / counts[0] < 3  # 100^(1/4) = 3.2, less what refused steps cost
    blind = DOPRI5._replace(spare=tuple(0.01 * w for w in DOPRI5.spare))
    found = solved(plane(schedule), schedule, PLANE, 1e-4, pair=blind)
    assert (np.abs(found.log_prob - want) > found.error).any()


def test_all_signs_together_are_the_exact_trace(x64):
    """An example's directions are kept on its way: the mean over all four pairs of signs is no estimate at all."""
    schedule, x = SCHEDULES["flow"], np.repeat(PLANE[:1], 4, axis=0)
    signs = jnp.array([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])
    drawn = solved(plane(schedule), schedule, x, 1e-6, trace=lambda keys, x: (signs[None], 1.0)).log_prob
    exact = solved(plane(schedule), schedule, x[:1], 1e-6)
    np.testing.assert_allclose(drawn.mean(), exact.log_prob[0], atol=2e-6)
    assert exact.noise == 0
    # Over all 16 pairs of draws the square of the noise is, on average, their variance.
    pairs = jnp.stack([jnp.repeat(signs, 4, axis=0), jnp.tile(signs, (4, 1))])
    both = solved(plane(schedule), schedule, x[:1].repeat(16, 0), 1e-6, trace=lambda keys, x: (pairs, 0.5, True))
    np.testing.assert_allclose((both.noise**2).mean(), both.log_prob.var(), rtol=1e-4)
    np.testing.assert_allclose(both.log_prob.var(), drawn.var() / 2, rtol=1e-4)
    assert drawn.std() > 0.1


# ---- Whose steps, and how walks end.


def test_an_example_does_not_depend_on_its_neighbours(x64):
    """Not on easy ones, nor on one that is lost, which is named."""
    schedule = SCHEDULES["flow"]

    def denoise(x, t):
        broken = jnp.where((x[..., :1] > 50) & (t < 0.5), jnp.nan, 0.0)
        return Gaussian(plane(schedule)(x, t).mean + broken)

    together = solved(denoise, schedule, np.vstack([PLANE[:3], [[200.0, 0]]]), 1e-5)
    alone = solved(denoise, schedule, PLANE[1:2], 1e-5)
    np.testing.assert_allclose(together.log_prob[1], alone.log_prob[0], rtol=1e-9)
    assert together.evaluations[1] == alone.evaluations[0]
    assert len(set(np.asarray(together.evaluations[:3]))) > 1
    assert np.isnan(together.log_prob[3])
    assert together.error[3] == np.inf
    with pytest.raises(NotFiniteError, match="1 of 4 examples was left: 3, the network's answer is not finite"):
        adaptive.check_arrived(together)


def test_each_way_of_being_lost_has_a_name():
    schedule = SCHEDULES["flow"]

    def lost(denoise, **options):
        found = solved(denoise, schedule, PLANE[:2], 1e-3, dtype=jnp.float32, **options)
        assert np.isnan(found.log_prob).all()
        assert np.isinf(found.error).all()
        return {ENDINGS[code].split(":")[0] for code in np.asarray(found.ending)}

    def jumping(x, t):
        return Gaussian(plane(schedule)(x, t).mean + jnp.where(t < 0.3, 0.0, 1e3))

    def breaking(x, t):
        return Gaussian(plane(schedule)(x, t).mean / jnp.where(t < 0.3, 1.0, jnp.nan))

    assert lost(plane(schedule), most=5) == {"it met its bound of steps"}
    assert lost(jumping) == {"its steps became too short"}
    assert lost(breaking) == {"the network's answer is not finite"}


def test_a_small_jump_is_passed_over(x64):
    """A denoiser that jumps by 0.1 on the way: the density is that of a fine grid's."""
    schedule = SCHEDULES["flow"]

    def denoise(x, t):
        return Gaussian(gaussian_data(schedule)(x, t).mean + jnp.where(t < 0.3, 0.1, 0.0))

    found = adaptive.check_arrived(solved(denoise, schedule, X, 1e-4))
    keys = jax.random.split(jax.random.key(0), len(X))
    times = flow_times(schedule, 4000, LEVEL)
    want = jax.jit(lambda x: ode_likelihood(denoise, schedule, times, x, keys, exact_trace()))(jnp.asarray(X))
    np.testing.assert_allclose(found.log_prob, want.log_prob, atol=2e-4 + want.error.max())


def test_the_network_stands_in_the_program_once():
    calls = []

    def denoise(x, t):
        calls.append(t.shape)
        return Gaussian(jnp.tanh(x))

    keys = jax.random.split(jax.random.key(0), 2)
    solve = partial(adaptive_likelihood, denoise, SCHEDULES["cosine"], flow_times(SCHEDULES["cosine"], 1))
    program = jax.make_jaxpr(lambda x: solve(x, keys))(jnp.zeros((2, 3)))
    assert calls == [(2,)]
    assert {out.dtype for out in program.out_avals[:3]} == {jnp.dtype(jnp.float32)}


def test_times_between_are_those_of_the_schedule(x64):
    for name in ("vp", "cosine", "flow", "edm", "ve"):
        schedule = SCHEDULES[name]
        soft = likelihood.grids.softness(schedule)
        times = flow_times(schedule, 777, LEVEL)
        u = likelihood.grids.even_clock(schedule, times, soft)
        between = likelihood.grids.times_between(schedule, soft, u[0], u[-1])
        np.testing.assert_allclose(between(jnp.asarray(u)), times, rtol=1e-10)
        np.testing.assert_allclose(between(jnp.asarray(u, jnp.float32)), times, rtol=3e-6)


def test_a_tolerance_that_cannot_be_met_is_refused():
    schedule, x = SCHEDULES["cosine"], jnp.zeros((2, 3))
    keys, times = jax.random.split(jax.random.key(0), 2), flow_times(SCHEDULES["cosine"], 1)
    denoise = gaussian_data(schedule)
    with pytest.raises(InputError, match="a table of betas has no times between its own"):
        adaptive_likelihood(denoise, SCHEDULES["table"], (1.0, 0.001), x, keys)
    for tolerance in (0.0, -1.0, 1e-9, np.nan, np.inf):
        with pytest.raises(InputError, match="in float32: take at least 5e-07"):
            adaptive_likelihood(denoise, schedule, times, x, keys, tolerance)
    with pytest.raises(InputError, match=r"in bfloat16: take at least 0\.03"):
        adaptive_likelihood(denoise, schedule, times, x.astype(jnp.bfloat16), keys)
    with pytest.raises(InputError, match="first and last time, not 3"):
        adaptive_likelihood(denoise, schedule, flow_times(schedule, 2), x, keys)
    with pytest.raises(InputError, match="no slope at t = 0"):
        adaptive_likelihood(denoise, schedule, (1.0, 0.0), x, keys)
    with pytest.raises(InputError, match="at least 1 step"):
        adaptive_likelihood(denoise, schedule, times, x, keys, most=0)
    for make in (likelihood.make_density_fn, likelihood.make_adaptive_density_fn):
        grid = flow_times(schedule, 5) if make is likelihood.make_density_fn else times
        with pytest.raises(InputError, match="says eps says nothing of x0 at t = 1"):
            make(lambda params, x, t: x, parameterizations.eps(schedule, lambda t: t), schedule, grid)


def test_a_network_with_a_condition(x64):
    """`make_adaptive_density_fn` is `make_density_fn` in the limit."""
    schedule = SCHEDULES["flow"]
    velocity = parameterizations.velocity(schedule, lambda t: t)

    def apply(params, x, t, cond):
        return params * jnp.tanh(x + cond["label"][:, None]) * t[:, None]

    label, keys = {"label": jnp.arange(4.0)}, jax.random.split(jax.random.key(0), 4)
    one = likelihood.make_adaptive_density_fn(
        apply, velocity, schedule, flow_times(schedule, 1), tolerance=1e-7, trace=exact_trace()
    )
    other = likelihood.make_density_fn(apply, velocity, schedule, flow_times(schedule, 300), trace=exact_trace())
    x = jnp.asarray(PLANE[:4])
    np.testing.assert_allclose(
        jax.jit(one)(0.3, keys, x, label).log_prob, jax.jit(other)(0.3, keys, x, label).log_prob, atol=1e-6
    )


# ---- score_sde's way (Song et al. 2021, appendix D.2), by SciPy in float64: x runs in t from 1e-5 to 1.

WEIGHTS_IN, WEIGHTS_OUT = np.random.default_rng(1).normal(size=(2, 3, 6)) / 2
BETA_MIN, BETA_MAX, SIGMA_MIN, SIGMA_MAX = 0.1, 20.0, 0.01, 50.0


def rate(t):
    return BETA_MIN + t * (BETA_MAX - BETA_MIN)


def lost(t):
    return -np.expm1(-BETA_MIN * t - 0.5 * (BETA_MAX - BETA_MIN) * t**2)


def ve_level(t):
    return SIGMA_MIN * (SIGMA_MAX / SIGMA_MIN) ** t


# Of each SDE: our schedule, its drift's rate, the square of its diffusion, the std that its network is scaled by, and
# that of its prior.
SDES = {
    "vp": (schedules.vp_linear(), rate, rate, lambda t: np.sqrt(lost(t)), 1.0),
    "sub-vp": (
        schedules.sub_vp(),
        rate,
        lambda t: rate(t) * -np.expm1(-2 * BETA_MIN * t - (BETA_MAX - BETA_MIN) * t**2),
        lost,
        1.0,
    ),
    "ve": (
        schedules.ve(SIGMA_MIN, SIGMA_MAX),
        lambda t: 0.0,
        lambda t: 2 * np.log(SIGMA_MAX / SIGMA_MIN) * ve_level(t) ** 2,
        ve_level,
        SIGMA_MAX,
    ),
}


def network(x, t, xp):
    """A random smooth network of the noise and its trace: [N, 3], [N]; t is a scalar or [N, 1]."""
    bend = xp.tanh(x @ WEIGHTS_IN + 3 * t)
    noise = 0.5 * x + bend @ WEIGHTS_OUT.T
    return noise, 1.5 + (1 - bend**2) @ (WEIGHTS_IN * WEIGHTS_OUT).sum(0)


def score_sde(sde, x, tolerance):
    """log p of x [N, 3] and its latent, by its formula: the prior's and the integral of the divergence."""
    _, drift, diffusion, std, prior = sde

    def slope(t, state):
        x = state[: 3 * len(PLANE)].reshape(-1, 3)
        norm = np.hypot(1.0, std(t)) if prior > 1 else 1.0
        noise, trace = network(x / norm, t, np)
        pull = 0.5 * diffusion(t) / std(t)
        velocity = -0.5 * drift(t) * x + pull * noise
        divergence = -1.5 * drift(t) + pull * trace / norm
        return np.concatenate([velocity.ravel(), divergence])

    begin = np.concatenate([x.ravel(), np.zeros(len(x))])
    state = solve_ivp(slope, (1e-5, 1.0), begin, method="RK45", rtol=tolerance, atol=tolerance).y[:, -1]
    latent, change = state[: x.size].reshape(x.shape), state[x.size :]
    return normal(latent, prior) + change, latent


def normal(x, std):
    return (-0.5 * (x / std) ** 2 - np.log(std) - 0.5 * np.log(2 * np.pi)).sum(-1)


@pytest.mark.parametrize("name", SDES)
def test_it_is_what_score_sde_finds(x64, name):
    """Its x is our x at t = 1e-5, alpha y of the density of y; its prior is put in the place of ours."""
    sde = SDES[name]
    schedule, *_, prior = sde
    x = np.random.default_rng(2).normal(size=(len(PLANE), 3))

    def apply(params, x, t):
        level = ve_level(t) if prior > 1 else schedule.sigma(t)
        norm = jnp.hypot(1.0, level) if prior > 1 else 1.0
        return -network(x / jnp.expand_dims(norm, -1), t[:, None], jnp)[0] / level[:, None]

    score = parameterizations.score(schedule, lambda t: t)
    times = np.array([1.0, 1e-5])
    density = likelihood.make_adaptive_density_fn(apply, score, schedule, times, tolerance=1e-6, trace=exact_trace())
    alpha = schedule.alpha(times[1])
    keys = jax.random.split(jax.random.key(0), len(x))
    found = adaptive.check_arrived(jax.jit(density)(1.0, keys, jnp.asarray(x / alpha)))
    ours = found.log_prob - 3 * np.log(alpha)
    ours += normal(found.latent, prior) - normal(found.latent, np.hypot(schedule.alpha(1.0), schedule.sigma(1.0)))
    theirs, latent = score_sde(sde, x, 1e-10)
    np.testing.assert_allclose(ours, theirs, atol=2e-6)
    np.testing.assert_allclose(found.latent, latent, rtol=1e-5, atol=1e-6)
    usual, _ = score_sde(sde, x, 1e-5)
    assert np.abs(usual - ours).max() < 0.02
    assert np.abs(usual - theirs).max() > np.abs(ours - theirs).max()
