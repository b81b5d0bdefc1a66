"""PNDM and PLMS: the paper's formulas line by line, the order of their errors, and how often they ask the network."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import samplers, schedules, timesteps
from diffusion_jax.diffusion.samplers.ode import euler
from diffusion_jax.diffusion.samplers.pndm import IMPROVED_EULER, RUNGE_KUTTA, VELOCITY, Start, plms, pndm
from tests.diffusion.samplers.test_ode import SCHEDULES, X, exact, flow_map, walk

BEGINNINGS = {"plms": (plms, IMPROVED_EULER), "pndm": (pndm, RUNGE_KUTTA)}


def nonlinear(x, t):
    return Gaussian(jnp.tanh(1.3 * x - t))


def by_the_paper(schedule, grid, x, start, denoise):
    """Liu et al. 2022, algorithm 2, with either beginning, in NumPy: (the result, how often it looked)."""
    seen, looks = [], 0

    def eps(x, t):
        nonlocal looks
        looks += 1
        return (x - schedule.alpha(t) * np.asarray(denoise(x, t).mean)) / schedule.sigma(t)

    def phi(x, e, t, s):
        (a, b), (c, d) = ((schedule.alpha(at), schedule.sigma(at)) for at in (t, s))
        return c / a * x + (d - c * b / a) * e

    for n, (t, s) in enumerate(itertools.pairwise(grid)):
        e, middle = eps(x, t), (t + s) / 2
        seen = [e, *seen][:4]
        if n < start.steps and s > 0 and start is RUNGE_KUTTA:
            e_2 = eps(phi(x, e, t, middle), middle)
            e_3 = eps(phi(x, e_2, t, middle), middle)
            e_4 = eps(phi(x, e_3, t, s), s)
            e = (e + 2 * e_2 + 2 * e_3 + e_4) / 6
        elif n < start.steps and s > 0:
            e = (e + eps(phi(x, e, t, s), s)) / 2
        elif len(seen) == 2:
            e = (3 * seen[0] - seen[1]) / 2
        elif len(seen) == 3:
            e = (23 * seen[0] - 16 * seen[1] + 5 * seen[2]) / 12
        elif len(seen) == 4:
            e = (55 * seen[0] - 59 * seen[1] + 37 * seen[2] - 9 * seen[3]) / 24
        x = phi(x, e, t, s)
    return x, looks


@pytest.mark.parametrize("steps", [1, 3, 7])
@pytest.mark.parametrize(("make", "start"), BEGINNINGS.values(), ids=BEGINNINGS)
def test_steps_and_evaluations_are_the_papers(x64, make, start, steps):
    """N + 1 evaluations in N steps of `plms`, N + 9 of `pndm`; in steps to s = 0 one, and so one in a single step."""
    schedule, grid, asked = schedules.vp_linear(), timesteps.linear(steps, 0.9), []

    def denoise(x, t):
        jax.debug.callback(lambda: asked.append(1))
        return nonlinear(x, t)

    ours = walk(make(schedule), grid, denoise, X)
    jax.effects_barrier()
    paper, looks = by_the_paper(schedule, grid, X, start, nonlinear)
    np.testing.assert_allclose(ours, paper, rtol=1e-11)
    more = {IMPROVED_EULER: 1, RUNGE_KUTTA: 3 * min(steps - 1, 3)}[start] if steps > 1 else 0
    assert len(asked) == looks == steps + more
    if steps > 1:  # control: the other solver is seen
        assert np.abs(walk(euler(schedule), grid, nonlinear, X) - paper).max() > 1e-3


def order(make, schedule, first, last, steps):
    """Measured between two grids of equal steps in t, of N and of 2 N, on Gaussian data."""
    truth = flow_map(schedule, X, first, last)
    grids = (np.linspace(first, last, n + 1) for n in (steps, 2 * steps))
    errors = [float(np.linalg.norm(walk(make(schedule), grid, exact(schedule), X) - truth)) for grid in grids]
    print(f"order {np.log2(errors[0] / errors[1]):.2f}, errors {errors}")
    return np.log2(errors[0] / errors[1])


BENT = [(plms, "vp"), (plms, "cosine"), (plms, "flow"), (pndm, "vp")]


@pytest.mark.parametrize(("make", "name"), BENT, ids=[f"{make.__name__} {name}" for make, name in BENT])
def test_second_order_where_levels_bend(x64, make, name):
    """Measured 1.99, 2.00, 2.00 and 1.99, where DDIM has 1.00."""
    assert abs(order(make, SCHEDULES[name], 0.9, 0.1, 160) - 2) < 0.1


@pytest.mark.parametrize(("make", "wanted"), [(plms, 3), (pndm, 4)], ids=["plms", "pndm"])
def test_the_order_of_the_parts_where_levels_are_time(x64, make, wanted):
    """Where sigma / alpha = t the methods are the classical ones: improved Euler's single step costs an order.

    Measured 3.08 and 3.98.
    """
    assert abs(order(make, schedules.edm(1.0), 0.9, 0.5, 80) - wanted) < 0.2


def with_weights(weights):
    """`plms` with other weights in its first step."""
    return lambda schedule: pndm(schedule, Start((0.0, 1.0), weights, 1))


@pytest.mark.parametrize(
    ("make", "wanted"),
    [(euler, 1), (lambda schedule: pndm(schedule, direction=VELOCITY), 1), (with_weights((1.0, 0.0)), 2)],
    ids=["ddim", "velocity", "first step of ddim"],
)
def test_less_gives_a_lower_order(x64, make, wanted):
    """Controls, where `plms` and `pndm` have 3 and 4: DDIM, averages of v, and a first step of first order."""
    assert abs(order(make, schedules.edm(1.0), 0.9, 0.5, 80) - wanted) < 0.2


def test_noise_that_holds_still_is_followed_exactly(x64):
    """What sets the pseudo methods apart from the classical: phi is exact. Control: averages of v are not."""
    data = jnp.array([[0.4, -0.2], [0.1, 0.9]])
    schedule, grid = schedules.cosine(), np.array([0.9, 0.6, 0.5, 0.2, 0.1])

    def x(t):
        return schedule.alpha(t) * data + schedule.sigma(t) * X

    def end(sampler):
        return walk(sampler, grid, lambda x_t, t: Gaussian(data), x(0.9))

    for sampler in (plms(schedule), pndm(schedule)):
        np.testing.assert_allclose(end(sampler), x(0.1), rtol=1e-12)
    assert np.abs(end(pndm(schedule, direction=VELOCITY)) - x(0.1)).max() > 1e-2


@pytest.mark.parametrize("make", [plms, pndm])
def test_the_program_does_not_grow_with_the_steps(make):
    def size(steps):
        sampler, keys = make(schedules.vp_linear()), jax.random.split(jax.random.key(0), 2)
        program = jax.make_jaxpr(lambda x: samplers.solve(sampler, timesteps.linear(steps), nonlinear, x, keys))
        return str(program(X.astype(np.float32))).count(" tanh ")

    assert size(4) == size(40) == 1


def test_a_chain_to_0_is_finite_and_can_be_differentiated_in_float32():
    sampler, grid = pndm(schedules.vp_linear()), timesteps.linear(6)
    keys = jax.random.split(jax.random.key(0), 2)

    def end(x):
        return jnp.sum(samplers.solve(sampler, grid, exact(schedules.vp_linear()), x, keys))

    value, slope = jax.jit(jax.value_and_grad(end))(X.astype(np.float32))
    assert slope.dtype == jnp.float32
    assert np.isfinite(value)
    # The flow of Gaussian data is affine: all pixels are moved alike.
    assert np.isfinite(slope).all()
    np.testing.assert_allclose(slope, slope[0, 0], rtol=1e-5)


def test_pure_noise_has_no_phi_for_noise_but_one_for_v():
    schedule, grid = schedules.cosine(), timesteps.linear(6)
    with pytest.raises(InputError, match="infinite at t = 1"):
        walk(pndm(schedule), grid, nonlinear, X.astype(np.float32))
    assert np.isfinite(walk(pndm(schedule, direction=VELOCITY), grid, nonlinear, X.astype(np.float32))).all()
    with pytest.raises(InputError, match="a grid of times must fall"):
        walk(pndm(schedule), grid[::-1], nonlinear, X)
