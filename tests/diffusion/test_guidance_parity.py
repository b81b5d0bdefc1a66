"""Guidance against diffusers: rescaling, dynamic thresholds, and RePaint's walk over the times."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.diffusion import gaussian, guidance, inpainting, schedules

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")
guiders = pytest.importorskip("diffusers.guiders.guider_utils", reason="parity needs a diffusers with guiders")

SCHEDULE = schedules.vp_linear()
SHAPE = (3, 4, 5, 2)


def drawn(seed):
    return np.random.default_rng(seed).normal(size=SHAPE)


@pytest.mark.parametrize("phi", [0.0, 0.7, 1.0])
def test_rescaling_in_eps_is_rescale_noise_cfg(x64, phi):
    """Of a guided eps, through x0 and back; the scale 7.5 is theirs, on eps."""
    x, conditional, unconditional = drawn(0), drawn(1), drawn(2)
    t = np.array([0.1, 0.5, 0.9])

    def predicts(eps):
        return lambda x, t, *cond: Gaussian(gaussian.x0_from_eps(SCHEDULE, x, jnp.asarray(eps), t))

    rescale = guidance.rescaled_eps(SCHEDULE, phi)
    guided = guidance.autoguidance(predicts(unconditional), 7.5, rescale)(predicts(conditional))(jnp.asarray(x), t)
    ours = gaussian.eps_from_x0(SCHEDULE, x, guided.mean, t)
    c, u = torch.from_numpy(conditional), torch.from_numpy(unconditional)
    theirs = guiders.rescale_noise_cfg(u + 7.5 * (c - u), c, phi)
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("percentile", "largest"), [(0.995, 1.0), (0.9, 1.5), (0.5, 100.0), (1.0, 100.0)])
def test_dynamic_thresholds_are_the_schedulers(x64, percentile, largest):
    scheduler = diffusers.DDPMScheduler(
        thresholding=True, dynamic_thresholding_ratio=percentile, sample_max_value=largest
    )
    x0 = drawn(0) * np.array([0.1, 1.0, 4.0]).reshape(3, 1, 1, 1)
    theirs = scheduler._threshold_sample(torch.from_numpy(x0))
    transform = guidance.dynamic_threshold(percentile, largest)
    ours = transform(lambda x, t: Gaussian(x))(jnp.asarray(x0), 0.5).mean
    np.testing.assert_allclose(ours, theirs, rtol=1e-12)


@pytest.mark.parametrize(("steps", "jump", "resamplings"), [(250, 10, 10), (50, 10, 2), (20, 1, 3), (17, 5, 4)])
def test_the_walk_of_repaint_visits_the_times_of_the_scheduler(steps, jump, resamplings):
    """Their list has each of the points on the way up; a point's number is one more than their time's.

    (RePaint's own code reads the same list so. diffusers takes a time for the step that is made there, and jumps one
    point lower, from the finished image too.)
    """
    scheduler = diffusers.schedulers.RePaintScheduler(steps)
    scheduler.set_timesteps(steps, jump, resamplings)
    stood, start = inpainting.route(steps, jump, resamplings)
    visited = [steps]
    for here, first in zip(stood, start, strict=True):
        visited += [*range(here + 1, first + 1), first - 1]
    assert visited[-1] == 0
    np.testing.assert_array_equal(np.array(visited[:-1]) - 1, scheduler.timesteps)
    assert all(abs(a - b) == 1 for a, b in itertools.pairwise(visited))
