"""On Gaussian data the flow's average velocities are known: they are the losses' fixed point, and nothing near is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import guidance, processes, samplers, time_sampling, timesteps
from diffusion_jax.diffusion.few_step import mean_flow
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.diffusion.parameterizations import denoiser, flow_map, velocity
from diffusion_jax.diffusion.spans import Span
from diffusion_jax.models import UNet
from diffusion_jax.models.blocks.conditioning import NumberEmbedding
from diffusion_jax.models.two_times import TwoTimes
from tests.diffusion.few_step.exact import EXACT, MAP, SCHEDULE, S, apply, average, std

pytestmark = pytest.mark.slow

ALONG = {"MeanFlow": mean_flow.taught, "improved": mean_flow.predicted}
T, R = (grid.ravel() for grid in np.meshgrid([0.3, 0.7, 1.0], [0.0, 0.25]))
T, R = np.append(T, [0.2, 0.9]), np.append(R, [0.2, 0.9])  # and two times that are one


def plain(error):
    return jnp.ones_like(error)


# Every pair of nodes of data and noise is an example; what is quadratic in either is integrated exactly.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(3)
X, E = (grid.ravel() for grid in np.meshgrid(NODES * S, NODES))
WEIGHT = np.outer(WEIGHTS, WEIGHTS).ravel() / WEIGHTS.sum() ** 2


def corrupt(key, x0, t):
    """Of an example that holds its noise: [x, e]."""
    return (1 - t) * x0[:1] + t * x0[1:], x0[1:]


SHOWN = processes.gaussian(SCHEDULE)._replace(corrupt=corrupt)
LINE = MAP._replace(target=lambda x0, noise, t: noise - x0[:, :1])


def integrated(along, t, s, params=EXACT):
    """(expected squared error, its gradient) at one span."""
    loss = mean_flow.mean_flow(apply, LINE, SHOWN, along=along, weight=plain)
    span = Span(jnp.full(len(X), t), jnp.full(len(X), s))

    def mean(params):
        error, _ = loss(rng.per_example(rng.root(0), jnp.arange(len(X))), params, np.stack([X, E], 1), Context(span))
        return jnp.sum(WEIGHT * error)

    return jax.value_and_grad(mean)(params)


@pytest.mark.parametrize("along", ALONG.values(), ids=ALONG)
def test_the_exact_map_is_a_fixed_point_with_the_floor_that_theory_says(x64, along, monkeypatch):
    floors = []
    for t, s in zip(T, R, strict=True):
        value, slope = integrated(along, t, s)
        assert np.abs(slope).max() < 1e-13
        floors.append(value)
    spread = 1 if along is mean_flow.predicted else (std(R) / std(T)) ** 2
    np.testing.assert_allclose(floors, S**2 / std(T) ** 2 * spread, rtol=1e-12)
    # Control: with a gradient through the target MeanFlow has another fixed point; improved, a regression, has not.
    monkeypatch.setattr(jax.lax, "stop_gradient", lambda x: x)
    assert (np.abs(integrated(along, 1.0, 0.0)[1]).max() > 0.1) == (along is mean_flow.taught)


WRONG = {
    "against the flow": lambda *told: -mean_flow.predicted(*told),
    "in place": lambda u, z, *_: jnp.zeros_like(z),
}


@pytest.mark.parametrize("along", WRONG.values(), ids=WRONG)
def test_other_directions_have_another_fixed_point(x64, along):
    assert np.abs(integrated(along, 0.7, 0.25)[1]).max() > 0.3


def test_the_identity_needs_both_times(x64):
    """u + (t - s) du/dt is the velocity; derivatives by hand that hold the wrong time, or the interval, are none."""
    z = jnp.full(len(T), 1.5)

    def u(z, t, s):
        return average(t, s) * z

    def off(along, of_t, of_s):
        one = jnp.ones_like(z)
        value, slope = jax.jvp(u, (z, jnp.asarray(T), jnp.asarray(R)), (along * u(z, T, T), of_t * one, of_s * one))
        return float(jnp.abs(value + (T - R) * slope - u(z, T, T)).max())

    assert off(1, 1, 0) < 1e-14
    for wrong in [(1, 0, 1), (1, 1, 1), (0, 1, 0), (-1, 1, 0)]:
        assert off(*wrong) > 0.6, wrong


@pytest.mark.parametrize("steps", [1, 3])
def test_a_jump_of_the_exact_map_is_exact(x64, steps):
    z = np.array([[1.3], [-0.4]])
    denoise = denoiser(lambda *shown: apply(EXACT, *shown), MAP)
    keys = rng.per_example(rng.root(0), jnp.arange(2))
    times = timesteps.linear(steps)
    jumped = samplers.solve(samplers.jump(SCHEDULE), times, denoise, z, keys)
    np.testing.assert_allclose(jumped, S * z, rtol=1e-14)
    # The same denoiser told times is that of a flow, which few of Euler's steps miss.
    walked = samplers.solve(samplers.euler(SCHEDULE), times, denoise, z, keys)
    assert np.abs(walked - S * z).max() > 0.1
    _, film = samplers.film(samplers.jump(SCHEDULE), times, denoise, z, keys, steps)
    np.testing.assert_allclose(film, std(times)[:, None, None] * z, rtol=1e-13)


def test_guidance_inside_is_guidance_of_another_scale(x64):
    """Where the network's velocity is guided by omega / (1 - kappa), that is what it is taught, in the mean."""
    told, untold, omega, kappa = 0.7, -0.4, 1.2, 0.5

    def velocity(z, span, cond):
        scale = omega / (1 - kappa)
        return jnp.where(cond["label"] == 2, untold, scale * told + (1 - scale) * untold)

    def taught(label, kappa=kappa):
        regressed = mean_flow.guided(guidance.replacing(label=2), omega, kappa)
        v = jnp.where(label == 2, untold, told)
        return regressed(velocity, 0.0, 1.0, v, {"label": jnp.asarray(label)})

    for label in (0, 2):
        np.testing.assert_allclose(taught(label), velocity(0.0, None, {"label": label}), rtol=1e-14)
    assert abs(taught(0, kappa=0.0) - velocity(0.0, None, {"label": 0})) > 0.5
    with pytest.raises(InputError, match="kappa must be below 1"):
        taught(0, kappa=1.0)


@pytest.mark.parametrize("apart", [0.25, 0.75])
def test_pairs_have_their_laws_and_their_share(apart):
    """Kolmogorov-Smirnov, seed 0, 8000 pairs: a false alarm in 10^6 at 2.69 / sqrt(n). Control: the law of one."""
    num, law = 8000, scipy.stats.norm(-0.4, 1.0)
    times = mean_flow.pairs(*(time_sampling.logit_normal(-0.4, 1.0),) * 2, apart)
    span, weight = times.draw(times.init(), jax.random.key(0), jnp.arange(num), num)
    np.testing.assert_array_equal(weight, 1)
    assert (span.t > span.s).sum() == apart * num
    np.testing.assert_array_equal(span.length >= 0, True)
    levels = np.sort(law.cdf(np.log(span.t / (1 - span.t.astype(float)))))
    steps = (np.arange(num) + 0.5) / num
    assert np.abs(levels**2 - steps).max() < 2.69 / num**0.5  # of the larger of two
    assert np.abs(levels - steps).max() > 0.2
    smaller = np.sort(law.cdf(np.log(span.s / (1 - span.s)))[span.t > span.s])
    steps = (np.arange(len(smaller)) + 0.5) / len(smaller)
    assert np.abs(1 - (1 - smaller) ** 2 - steps).max() < 2.69 / len(smaller) ** 0.5
    with pytest.raises(InputError, match=r"a share of 1.5"):
        mean_flow.pairs(law, law, 1.5)


def test_the_weighted_loss_hides_the_error_and_info_says_it():
    loss = mean_flow.mean_flow(apply, MAP, processes.gaussian(SCHEDULE))
    keys, x0 = rng.per_example(rng.root(0), jnp.arange(4)), jnp.ones((4, 6))
    span = Span(jnp.full(4, 0.8), jnp.full(4, 0.1))
    for params in (EXACT, EXACT + 100):
        value, info = loss(keys, params, x0, Context(span))
        np.testing.assert_allclose(value, info["squared_error"] / (info["squared_error"] + 1e-2), rtol=1e-6)
        assert (value > 0.9).all()
    assert (info["squared_error"] > 1e3).all()


# ---- The library's own network.


@pytest.mark.exhaustive
def test_derivatives_of_a_unet_forwards_and_the_same_dropout_at_every_look():
    unet = UNet(
        channels=8, multipliers=(1,), blocks=1, attention_levels=(), out_channels=1, groups=4, dropout=0.3,
        embed={"interval": NumberEmbedding()},
    )  # fmt: skip
    network, parameterization = TwoTimes(unet), flow_map(velocity(SCHEDULE, lambda t: 10 * t), lambda t: 10 * t)
    keys = rng.per_example(rng.root(1), jnp.arange(2))
    x0 = jax.random.normal(jax.random.key(2), (2, 4, 4, 1))
    span = Span(jnp.array([0.9, 0.4]), jnp.array([0.2, 0.4]))
    shapes = jax.eval_shape(network.init, jax.random.key(0), *parameterization.scale(x0, span))["params"]
    leaves, tree = jax.tree.flatten(shapes)
    noise = np.random.default_rng(3)
    params = jax.tree.unflatten(tree, [noise.normal(0, 0.2, leaf.shape).astype(np.float32) for leaf in leaves])
    looks = []

    def looking(params, z, times, dropout_keys):
        looks.append(dropout_keys)
        return network.apply({"params": params}, z, times, dropout_keys=dropout_keys)

    loss = mean_flow.mean_flow(
        looking, parameterization, processes.gaussian(SCHEDULE), along=mean_flow.predicted, weight=plain
    )
    slopes, info = jax.jit(jax.grad(lambda params: both(loss(keys, params, x0, Context(span))), has_aux=True))(params)
    assert len(looks) == 2
    assert looks[0] is looks[1]
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slopes))

    # The same by central differences.
    noise_keys, dropout_keys = rng.split(keys, 2)
    z, eps = jax.vmap(processes.gaussian(SCHEDULE).corrupt)(noise_keys, x0, span.t)

    @jax.jit
    def u(z, t, s):
        shown = parameterization.scale(z, Span(t, s))
        return network.apply({"params": params}, *shown, dropout_keys=dropout_keys)

    step, v = 3e-3, u(z, span.t, span.t)
    ahead, behind = (u(z + sign * step * v, span.t + sign * step, span.s) for sign in (1, -1))
    length = span.length[:, None, None, None]
    found = u(z, *span) + length * (ahead - behind) / (2 * step)
    wanted = ((found - (eps - x0)) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(info["squared_error"], wanted, rtol=5e-3)
    # Control: the derivative is worth something here.
    assert np.abs(((u(z, *span) - (eps - x0)) ** 2).sum((1, 2, 3)) / wanted - 1)[0] > 0.03


def both(loss):
    return loss[0].sum(), loss[1]


# ---- Guidance that is told, on labels with data N(+-0.8, S^2).

CENTRES = np.array([-0.8, 0.8])


def guided_velocity(z, t, label, scale):
    """scale v(z | label) + (1 - scale) v(z | nothing), of the flow's exact posteriors; label 2 is nothing."""
    variance = std(t) ** 2
    of_label = [z - (1 - t) * c for c in CENTRES]
    each = [(t - (1 - t) * S**2) / variance * off - c for off, c in zip(of_label, CENTRES, strict=True)]
    share = jax.nn.sigmoid(z * (1 - t) * (CENTRES[1] - CENTRES[0]) / variance)  # of the second label, given z
    nothing = (1 - share) * each[0] + share * each[1]
    told = jnp.where(label == 2, nothing, jnp.where(label == 1, each[1], each[0]))
    return jnp.where(label == 2, nothing, scale * told + (1 - scale) * nothing)


def averaged_velocity(z, t, s, label, scale, steps=40):
    """(z_t - z_s) / (t - s) along the guided flow, by Runge and Kutta's method; where t = s it is the velocity."""

    def body(number, state):
        at, h = t + (s - t) * number / steps, (s - t) / steps
        k1 = guided_velocity(state, at, label, scale)
        k2 = guided_velocity(state + h / 2 * k1, at + h / 2, label, scale)
        k3 = guided_velocity(state + h / 2 * k2, at + h / 2, label, scale)
        k4 = guided_velocity(state + h * k3, at + h, label, scale)
        return state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)

    end = jax.lax.fori_loop(0, steps, body, z)
    apart = t > s
    return jnp.where(apart, (z - end) / jnp.where(apart, t - s, 1.0), guided_velocity(z, t, label, scale))


def test_at_every_scale_that_is_told_the_fixed_point_is_the_average_of_its_guided_flow(x64):
    """The gradient of the expected loss, by quadrature of data and noise; three scales and three labels at once.

    Controls: the average of another scale's flow, and what is regressed on without guidance, are no fixed points.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    grids = np.meshgrid(nodes, nodes, [0, 1], [0, 1, 2], [1.0, 2.0, 3.0], indexing="ij")
    x, e, half, label, scale = (jnp.asarray(grid.ravel()) for grid in grids)
    # An example that is told nothing is of either half; one that is told a label is of that one.
    chance = jnp.where(label == 2, 0.5, half == label)
    weight = chance.reshape(grids[0].shape) * np.outer(weights, weights)[:, :, None, None, None] / weights.sum() ** 2
    data = jnp.stack([jnp.asarray(CENTRES)[half] + S * x, e], 1)
    keys, span = rng.per_example(rng.root(0), jnp.arange(len(x))), Span(*(jnp.full(len(x), t) for t in (0.8, 0.3)))
    cond = {"label": label, "guidance_scale": scale}

    def slope(regressed=mean_flow.guided_as_told(guidance.replacing(label=2)), other=0.0):  # noqa: B008
        def shown(change, z, times, cond, dropout_keys):
            t, length = (each[:, None] for each in times)
            told = jnp.broadcast_to(jnp.asarray(cond["label"]), len(z))[:, None]
            u = averaged_velocity(z, t, t - length, told, cond["guidance_scale"][:, None] + other)
            return u + change[told] * jnp.cos(z)

        def expected(change):
            loss = mean_flow.mean_flow(shown, LINE, SHOWN, regressed, mean_flow.predicted, plain)
            error, _ = loss(keys, change, data, Context(span), cond)
            return (weight * error.reshape(weight.shape)).sum((0, 1, 2, 3))

        return jax.jacobian(expected)(jnp.zeros(3))  # of each scale, by a change of the network at each label

    right, other, unguided = jax.jit(lambda: (slope(), slope(other=0.5), slope(mean_flow.of_example)))()
    assert np.abs(right).max() < 1e-6
    assert np.abs(other)[:, :2].min() > 1e-2
    assert np.abs(unguided)[1:, :2].min() > 1e-2
    np.testing.assert_allclose(unguided[0], right[0], atol=1e-6)  # at scale 1 there is none
