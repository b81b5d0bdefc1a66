"""Consistency models' and latent ones' levels, times, boundaries and steps are those of diffusers."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402

from diffusion_jax.core.distributions import Gaussian  # noqa: E402
from diffusion_jax.diffusion import parameterizations, schedules  # noqa: E402
from diffusion_jax.diffusion.few_step import consistency, latent, pairs  # noqa: E402
from diffusion_jax.models.blocks.conditioning import GuidanceEmbedding  # noqa: E402
from tests.pretrained.their_source import scale_embedding  # noqa: E402

SCALED = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TABLE = schedules.from_betas(schedules.quadratic_betas(1000, 0.00085, 0.012))


def test_levels_and_times_of_consistency_models():
    theirs = diffusers.CMStochasticIterativeScheduler()
    theirs.set_timesteps(40)
    levels = consistency.karras_levels(40)
    np.testing.assert_allclose(theirs.sigmas[:40], levels, rtol=2e-6)
    np.testing.assert_allclose(theirs.timesteps, parameterizations.log_250(jnp.asarray(levels)), rtol=2e-6)


def test_the_embedding_of_a_scale():
    """Against theirs in double precision; of angles up to 14 000 single precision leaves 7e-4, theirs as ours."""
    scale = np.array([1.0, 1.5, 8.5, 15.0], np.float32)
    ours = GuidanceEmbedding(256).apply({"params": {"dense": {"kernel": np.eye(256, dtype=np.float32)}}}, scale, 256)
    theirs = [
        scale_embedding(torch.from_numpy(scale).double() - 1, 256, dtype).numpy()
        for dtype in (torch.float64, torch.float32)
    ]
    np.testing.assert_allclose(ours, theirs[0], atol=2e-3)
    np.testing.assert_allclose(ours[:2], theirs[0][:2], atol=1e-4)
    assert np.abs(theirs[1] - theirs[0]).max() > 1e-4
    assert np.abs(ours - np.roll(theirs[0], 128, axis=1)).max() > 0.5  # control: cosines first


@pytest.mark.usefixtures("x64")
def test_the_function_of_consistency_models():
    theirs = diffusers.CMStochasticIterativeScheduler(clip_denoised=False)
    theirs.set_timesteps(40)
    function = parameterizations.consistency(consistency.renoising(), time=parameterizations.log_250)
    x, output = np.random.default_rng(0).normal(size=(2, 1, 4, 4, 3))
    for index, t in enumerate(consistency.training_grid(40)[:-1]):
        sigma = theirs.sigmas[index].double()
        skip, out = theirs.get_scalings_for_boundary_condition(sigma)
        ours = function.read(jnp.asarray(output), jnp.asarray(x), jnp.asarray(t)).mean
        np.testing.assert_allclose(ours, out.item() * output + skip.item() * x, rtol=1e-5, atol=1e-5)


@pytest.mark.usefixtures("x64")
def test_steps_and_boundary_of_latent_consistency_models():
    x, eps = np.random.default_rng(0).normal(size=(2, 1, 3, 2, 2))
    grid = latent.training_grid()
    pair = pairs.of_times(TABLE, grid[:-1], grid[1:])
    ddim = diffusers.DDIMScheduler(**SCALED, set_alpha_to_one=False, clip_sample=False, timestep_spacing="trailing")
    ddim.set_timesteps(50)
    np.testing.assert_array_equal(ddim.timesteps, np.rint(1000 * grid[:-1]) - 1)
    solve = pairs.euler(TABLE)
    theirs = diffusers.LCMScheduler(**SCALED)
    for place, index in enumerate(ddim.timesteps):
        one = pairs.Pair(*(jnp.asarray(each[place : place + 1]) for each in pair))

        def denoise(x_t, t):
            return Gaussian((x_t - TABLE.sigma(t)[0] * eps) / TABLE.alpha(t)[0])

        ours = solve(denoise, jnp.asarray(x), one)
        wanted = ddim.step(torch.from_numpy(eps), index, torch.from_numpy(x)).prev_sample
        np.testing.assert_allclose(ours, wanted, atol=2e-5)
        both = theirs.get_scalings_for_boundary_condition_discrete(index)
        np.testing.assert_allclose(latent.skip_and_out(float(index)), [float(each) for each in both], rtol=1e-6)
    for steps in (1, 2, 4, 8):
        theirs.set_timesteps(steps)
        np.testing.assert_array_equal(theirs.timesteps, np.rint(1000 * latent.grid(steps)[:-1]) - 1)
    assert jax.config.jax_enable_x64
