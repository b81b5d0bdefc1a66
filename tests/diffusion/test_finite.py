"""Where a chain starts, and that nothing that is not finite leaves it in silence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.app import sampling
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian, draw
from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.data import images, views
from diffusion_jax.diffusion import parameterizations, processes, samplers, schedules, timesteps
from diffusion_jax.training.experiment import SampleRequest

pytestmark = pytest.mark.slow

VAR = 0.25
NOTHING_LEFT = {  # schedules with alpha(1) = 0, and a grid from there
    "cosine": (schedules.cosine(), timesteps.linear(10)),
    "flow": (schedules.flow(), timesteps.linear(10)),
    "zero terminal SNR": (
        schedules.from_betas(schedules.zero_terminal_snr(schedules.linear_betas(100))),
        timesteps.uniform(10, 100),
    ),
}
SAYS = {
    "eps": parameterizations.eps,
    "score": parameterizations.score,
    "EDM": lambda schedule, time: parameterizations.edm(schedule),
    "two": lambda schedule, time: parameterizations.joint(
        time, a=parameterizations.x0(time), b=parameterizations.eps(schedule, time)
    ),
    "learned": lambda schedule, time: parameterizations.learned_range(
        parameterizations.eps(schedule, time), schedule, 1e-5
    ),
}


def test_a_chain_starts_with_the_marginal_at_its_first_time():
    """The variance of 2^16 draws (seed 0) within 5 standard errors, .0014: a false alarm in 2 * 10^6.

    The exact denoiser of N(0, 1/4) makes Heun's chain linear, with an error of .001 at 100 steps. A chain that starts
    with the prior of t = 1 misses by a factor of 4 in variance.
    """
    schedule, num = schedules.edm(160.0), 2**16
    exact = parameterizations.x0(lambda t: t)._replace(
        read=lambda output, x, t: Gaussian(output * VAR / (VAR + schedule.sigma(t) ** 2))
    )
    times = timesteps.karras(schedule, 100, sigma_max=80.0)
    drawn = jax.jit(
        samplers.make_sample_fn(
            lambda params, x, t: x, exact, processes.gaussian(schedule), samplers.heun(schedule), times, num, ()
        )
    )(None, rng.root(0))
    bound = 5 * VAR * (2 / num) ** 0.5 + 0.001
    assert abs(float(jnp.var(drawn)) - VAR) < bound
    assert abs(4 * float(jnp.var(drawn)) - VAR) > bound  # the control


def test_a_process_that_knows_its_end_alone_refuses_another_start():
    process = processes.cold(lambda x0, t: (1 - t) * x0, lambda key, shape: jnp.zeros(shape))
    said = parameterizations.x0(parameterizations.thousandths)

    def chain(first):
        return samplers.make_sample_fn(
            lambda params, x, t: x, said, process, samplers.ancestral(process), timesteps.linear(4, first), 2, (3,)
        )

    assert jax.eval_shape(chain(1.0), None, rng.root(0)).shape == (2, 3)
    with pytest.raises(InputError, match="start the grid at 1"):
        chain(0.9)


def test_parts_of_a_product_start_together():
    schedule = schedules.edm(100.0)
    both = processes.product(x=processes.gaussian(schedule), y=processes.uniform(processes.linear_alpha, 3))
    keys = rng.per_example(rng.root(1), jnp.arange(4096))
    start = jax.vmap(lambda key: both.prior(key, {"x": (), "y": ()}, 0.5))(keys)
    # 4096 draws (seed 1): 5 standard errors of a deviation are 6 %.
    np.testing.assert_allclose(np.std(start["x"]), np.hypot(1, 50), rtol=0.06)
    assert set(np.unique(start["y"])) == {0, 1, 2}


@pytest.mark.parametrize("name", NOTHING_LEFT)
@pytest.mark.parametrize("says", SAYS)
def test_outputs_that_say_nothing_at_pure_noise_are_refused_there(says, name):
    schedule, times = NOTHING_LEFT[name]
    said = SAYS[says](schedule, parameterizations.thousandths)
    said.check(times[1:-1])
    with pytest.raises(InputError, match="t = 1, where alpha is 0"):
        said.check(times[:-1])
    process = processes.gaussian(schedule)
    with pytest.raises(InputError, match="start the grid below"):
        samplers.make_sample_fn(lambda *told: 0, said, process, samplers.ancestral(process), times, 1, (2,))


def test_outputs_that_say_x0_at_pure_noise_are_taken_there():
    for schedule, times in NOTHING_LEFT.values():
        for said in (
            parameterizations.x0(parameterizations.thousandths),
            parameterizations.v(schedule, parameterizations.thousandths),
        ):
            said.check(times[:-1])


def network(params, x, t):
    """NaN below t = 1/2 where the first entry is above the parameter."""
    return jnp.where((t[:, None] < 0.5) & (x[:, :1] > params), jnp.nan, 0.9 * x)


SCHEDULE = schedules.vp_linear()
DDIM = processes.gaussian(SCHEDULE, processes.ddim(0.0))
ANCESTRAL = samplers.ancestral(DDIM)


def made(request: SampleRequest, apply, sampler):
    said = parameterizations.x0(lambda t: t)
    run = {} if request.run is None else {"run": request.run}
    return samplers.make_sample_fn(apply, said, DDIM, sampler, timesteps.linear(10), request.batch, (3,), **run)


def draws(apply, params, sampler=ANCESTRAL):
    keys = rng.per_example(rng.root(0), jnp.arange(16))
    make = lambda request: made(request, apply, sampler)  # noqa: E731
    return sampling.draw(make, params, keys, (), SampleRequest(1), 8, quiet=True)


def test_a_sample_that_is_not_finite_is_an_error_that_names_the_step():
    assert np.isfinite(draws(network, jnp.float32(1e9))).all()
    seen = r"sample 0 is not finite from step 7 on, at t = 0\.4 .*output there .*; 8 of 8"
    with pytest.raises(RunError, match=seen):
        draws(network, jnp.float32(-1e9))
    with pytest.raises(RunError, match="parameters are not finite"):
        draws(lambda params, x, t: params * x, jnp.float32(np.nan))
    with pytest.raises(RunError, match="chain diverges"):
        draws(lambda params, x, t: params * x**3, jnp.float32(50.0))
    adaptive = samplers.dpm_adaptive(SCHEDULE, rtol=1e-6, atol=1e-6, tries=20)
    with pytest.raises(RunError, match=r"step 1 on, .* no step there whose error its tolerance allows"):
        draws(lambda params, x, t: jnp.sign(jnp.sin(params * x)), jnp.float32(1e4), adaptive)  # jumps everywhere


def test_the_sample_that_is_broken_is_named():
    keys = rng.per_example(rng.root(0), jnp.arange(16))
    starts = jax.vmap(lambda key: jax.random.normal(key, (3,)))(rng.each(keys, 0))
    first = np.asarray(starts[:, 0])
    which = int(first.argmax())
    limit = np.sort(first)[-2:].mean()  # one start is above it
    with pytest.raises(RunError, match=rf"sample {which} is not finite from step 1 on, at t = 1 .*; 1 of 8"):
        draws(lambda params, x, t: jnp.where(x[:, :1] > params, jnp.nan, 0.0 * x), jnp.float32(limit))


def test_pixels_that_are_not_finite_are_never_written(tmp_path):
    for value in (np.nan, np.inf):
        broken = np.zeros((4, 2, 2, 1), np.float32)
        broken[1, 0, 0, 0] = value
        with pytest.raises(RunError, match="1 of 16 values"):
            images.to_uint8(broken)
        with pytest.raises(RunError, match="not finite"):
            sampling.keep(tmp_path, views.pictures(), broken, ())
    assert not list(tmp_path.iterdir())


def test_a_chain_of_parts_is_watched_too():
    schedule = schedules.vp_linear()
    both = processes.product(x=processes.gaussian(schedule), y=processes.uniform(processes.linear_alpha, 3))
    said = parameterizations.joint(
        lambda t: t, x=parameterizations.x0(lambda t: t), y=parameterizations.logits(lambda t: t)
    )

    def apply(params, x, t):
        return {"x": jnp.where(t[:, None] < 0.35, jnp.inf, x["x"]), "y": jnp.zeros((*x["y"].shape, 3))}

    sampler = samplers.ancestral(both, samplers.each_its_own(x=samplers.on_mean, y=draw))
    found = samplers.make_sample_fn(
        apply, said, both, sampler, timesteps.linear(10), 4, {"x": (2,), "y": (2,)}, run=samplers.breaking
    )(None, rng.root(0))
    np.testing.assert_array_equal(found.step, 8)
    np.testing.assert_allclose(found.t, 0.3, rtol=1e-6)
