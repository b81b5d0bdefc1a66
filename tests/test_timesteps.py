import numpy as np
import pytest

from diffusion_jax import schedules, timesteps
from diffusion_jax.errors import InputError

GRIDS = {
    "uniform": timesteps.uniform(10, 1000),
    "leading": timesteps.leading(10, 1000),
    "quadratic": timesteps.quadratic(10, 1000),
    "respaced": timesteps.respaced(10, 1000),
    "linear": timesteps.linear(10),
    "log_snr": timesteps.log_snr(schedules.vp_linear(), 10),
    "karras": timesteps.karras(schedules.edm(), 10),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_grid_falls_to_0_in_as_many_steps_as_asked_for(grid):
    assert grid.dtype == np.float64
    assert len(timesteps.check_grid(grid)) == 11
    assert grid[-1] == 0


@pytest.mark.parametrize("name", ["uniform", "leading", "quadratic", "respaced"])
@pytest.mark.parametrize("steps", [1, 7, 50, 100])
def test_grids_of_a_table_stay_on_it(name, steps):
    grid = getattr(timesteps, name)(steps, 1000)
    schedules.from_betas(schedules.linear_betas(1000)).alpha(grid)
    assert len(grid) == steps + 1


def test_published_spacings():
    np.testing.assert_array_equal(timesteps.leading(4, 1000) * 1000, [751, 501, 251, 1, 0])
    # Improved DDPM's space_timesteps(1000, "5") walks by 249.75 from 0 and rounds.
    want = [round(249.75 * i) for i in range(5)]
    np.testing.assert_allclose(timesteps.respaced(5, 1000)[:-1][::-1] * 1000 - 1, want)
    # DDIM's quadratic sequence for S = 10: int(linspace(0, sqrt(800), 10)^2).
    want = [int(s) for s in np.linspace(0, 800**0.5, 10) ** 2]
    np.testing.assert_allclose(timesteps.quadratic(10, 1000)[:-1][::-1] * 1000 - 1, want)


def test_karras_levels_are_the_paper_s():
    levels = timesteps.karras(schedules.edm(), 18) * 80
    ramp = 80 ** (1 / 7) + np.arange(18) / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))
    np.testing.assert_allclose(levels[:-1], ramp**7, rtol=1e-9)


def test_log_snr_steps_are_equal():
    schedule = schedules.vp_linear()
    values = schedules.log_snr(schedule, timesteps.log_snr(schedule, 20)[:-1])
    np.testing.assert_allclose(np.diff(values), np.diff(values)[0], rtol=1e-6)


def test_levels_that_a_schedule_does_not_have_are_refused():
    with pytest.raises(InputError, match="never reaches"):
        timesteps.karras(schedules.vp_linear(beta_max=5.0), 10)
    with pytest.raises(InputError, match="finite"):
        timesteps.log_snr(schedules.cosine(), 10, last=0.0)
    with pytest.raises(InputError, match="coincide"):
        timesteps.quadratic(900, 1000)
