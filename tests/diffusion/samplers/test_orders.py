"""Orders of convergence of the solvers that look several times or remember, on Gaussian data, whose flow is known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import processes, samplers, schedules, timesteps
from diffusion_jax.diffusion.samplers import at_most, cycles, dpm, singlestep
from tests.diffusion.samplers import test_sde
from tests.diffusion.samplers.test_ode import X, exact, flow_map

VP = schedules.vp_linear()
FIRST, LAST = 0.9, 0.1


def multistep(form, order, second=dpm.midpoint, curvature=1.0):
    return lambda schedule: samplers.dpm_multistep(schedule, form, at_most(order), second, curvature)


def single(form, order, *rules):
    # Whole cycles: the last step is of the cycle's order too.
    return lambda schedule: samplers.dpm_singlestep(schedule, form, lambda n: np.arange(n) % order + 1, *rules)


def unipc(order, form=None, gain=samplers.bh2):
    return lambda schedule: samplers.unipc(schedule, at_most(order), form, gain)


# Families, whose members differ in their plans alone, and their orders. The first step of a method that remembers is
# Euler's, but at the noisy end, where D hardly moves, and so its error is not seen.
FAMILIES = {
    "multistep": {
        "data 1": (multistep(dpm.data(), 1), 1),
        "data 2": (multistep(dpm.data(), 2), 2),
        "noise 2": (multistep(dpm.NOISE, 2), 2),
        "noise 2 exact": (multistep(dpm.NOISE, 2, dpm.exact), 2),
        "data 3": (multistep(dpm.data(), 3, dpm.exact), 3),
        "deis 2": (lambda schedule: samplers.deis(schedule, at_most(2)), 2),
        "deis 3": (lambda schedule: samplers.deis(schedule, at_most(3)), 3),
    },
    "lms": {"lms": (samplers.lms, 4)},
    "unipc": {
        "unipc 1": (unipc(1), 2),
        "unipc 2": (unipc(2), 3),
        "unipc 2 bh1": (unipc(2, gain=samplers.bh1), 3),
        "unipc 2 noise": (unipc(2, dpm.NOISE), 3),
        "unipc 3": (unipc(3), 4),
    },
    "singlestep": {
        "data 2": (single(dpm.data(), 2), 2),
        "noise 2": (single(dpm.NOISE, 2), 2),
        "data 3": (single(dpm.data(), 3), 3),
        "data 3 curved": (single(dpm.data(), 3, dpm.exact, singlestep.curved), 3),
        "noise 3": (single(dpm.NOISE, 3), 3),
    },
    "two looks": {"dpm_2": (samplers.dpm_2, 2), "dpmpp_2s": (samplers.dpmpp_2s, 2)},
}


def grid(steps, last=LAST):
    ends = schedules.log_snr(VP, np.array([FIRST, last]))
    return schedules.inverse_log_snr(VP, np.linspace(*ends, steps + 1))


def walker(make):
    """`(sampler, times) -> x at the end`, compiled once a number of steps for samplers of one family."""
    family, keys = make(VP), jax.random.split(jax.random.key(0), len(X))

    @jax.jit
    def run(plan):
        body = lambda state, plan: (family.step(keys, state, plan, exact(VP)), None)  # noqa: E731
        return family.done(jax.lax.scan(body, family.init(jnp.asarray(X)), plan)[0])

    return lambda sampler, times: run(sampler.plan(times[:-1], times[1:]))


def order(walked, sampler, last=LAST):
    """Measured between 96 and 192 steps of equal length in log-SNR."""
    truth = flow_map(VP, X, FIRST, last)
    errors = [float(np.linalg.norm(walked(sampler, grid(steps, last)) - truth)) for steps in (96, 192)]
    return np.log2(errors[0] / errors[1])


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_orders_of_convergence(x64, family):
    walked = walker(next(iter(family.values()))[0])
    found = {name: (order(walked, make(VP)), wanted) for name, (make, wanted) in family.items()}
    print(found)
    assert not {name: pair for name, pair in found.items() if not abs(pair[0] - pair[1]) < 0.3}


def test_half_of_the_curvature_costs_an_order(x64):
    """The published solver with three memories is of second order, and with all of its second difference of third."""
    walked = walker(multistep(dpm.data(), 3))
    half, whole = (order(walked, multistep(dpm.data(), 3, dpm.exact, c)(VP), last=0.2) for c in (0.5, 1.0))
    assert abs(half - 2) < 0.2
    assert abs(whole - 3) < 0.2


def test_noise_of_two_looks_keeps_the_law():
    """eta = 1: 60 steps; seed 0, 400 x 64 draws, bounds as in test_sde. Control: half of the noise."""
    keys, num = jax.random.split(jax.random.key(0), 400), 400 * 64
    x, times = jax.random.normal(jax.random.key(1), (400, 64)), timesteps.linear(60)

    def variance(make, **noise):
        out = test_sde.walk(make(VP, eta=1.0, **noise), times, test_sde.exact(VP), x, keys)
        assert abs(out.mean() - test_sde.MEAN) < 4.9 * (test_sde.VAR / num) ** 0.5 + 0.01
        return abs(out.var() / test_sde.VAR - 1)

    bound = 4.9 * (2 / num) ** 0.5 + 0.05
    assert variance(samplers.dpm_2) < bound
    assert variance(samplers.dpmpp_2s) < bound
    assert variance(samplers.dpmpp_2s, s_noise=0.5) > bound


REFUSING = {
    "lms": samplers.lms,
    "dpm_2": samplers.dpm_2,
    "dpmpp_2s": samplers.dpmpp_2s,
    "unipc of noise": unipc(2, dpm.NOISE, samplers.bh1),
    "deis": lambda schedule: samplers.deis(schedule, at_most(3)),
    "dpm_singlestep": lambda schedule: samplers.dpm_singlestep(schedule, dpm.data(), cycles(3)),
    "dpm_multistep of noise": multistep(dpm.NOISE_SDE, 2),
}
WALKING = {"unipc": unipc(3), "dpmpp_3m_sde": samplers.dpmpp_3m_sde, "dpm_multistep": multistep(dpm.data(), 3)}


@pytest.mark.parametrize("name", [*REFUSING, *WALKING])
def test_chains_to_0_end_near_the_data(name):
    """In float32; where infinite noise has no meaning to a method, it refuses the grid that starts there."""
    keys, times = jax.random.split(jax.random.key(0), len(X)), timesteps.linear(12)

    def end(schedule):
        make = (REFUSING | WALKING)[name]
        return samplers.solve(make(schedule), times, exact(schedule), jnp.asarray(X, jnp.float32), keys)

    out = end(VP)
    assert out.dtype == jnp.float32
    assert np.abs(out).max() < 3
    if name in WALKING:
        assert np.abs(end(schedules.cosine())).max() < 3
    else:
        with pytest.raises(InputError, match="infinite"):
            end(schedules.cosine())


def test_ddim_without_a_bound_is_the_bridge_s(x64):
    keys, times = jax.random.split(jax.random.key(0), len(X)), timesteps.linear(7)
    ours = samplers.solve(samplers.ddim(VP, 0.6), times, exact(VP), jnp.asarray(X), keys)
    process = processes.gaussian(VP, processes.ddim(0.6))
    np.testing.assert_allclose(
        ours, samplers.solve(samplers.ancestral(process), times, exact(VP), jnp.asarray(X), keys), rtol=1e-10
    )


def test_mistakes_are_refused():
    for make in (
        lambda: samplers.dpm_2(VP, eta=1.5),
        lambda: samplers.dpmpp_2s(VP, s_noise=-1.0),
        lambda: dpm.data(-0.1),
        lambda: single(dpm.data(), 2)(VP).plan(np.array([0.9, 0.5]), np.array([0.5, 0.0])),
        lambda: samplers.lms(VP).plan(np.array([0.2]), np.array([0.5])),
    ):
        with pytest.raises(InputError):
            make()
