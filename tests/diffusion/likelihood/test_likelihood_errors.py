"""experiments/likelihood_errors: likelihoods know their error, on a few of its rows."""

import numpy as np
import pytest

from diffusion_jax.diffusion import likelihood, parameterizations
from experiments import likelihood_errors as errors

BAR = 3  # the mean error that is found is at most this times the mean that is said
KINDS = {"kinds": {name: errors.KINDS[name] for name in ("eps", "x0")}, "wrong": (0.0, 0.03)}
EXACT = {"trace": likelihood.exact_trace()}


def rows(name, walks, ends, count=6):
    schedule = (errors.SCHEDULES | errors.TABLES)[name]
    return list(errors.measure(name, schedule, walks, ends, count, **KINDS))


def test_what_is_said_is_what_is_found(x64):
    """Networks of eps and x0 that are right, and 3 % wrong; with the exact trace and with two probes.

    The noise is that of 24 walks (seed 0): its mean is known to a quarter, far from a factor of 3.
    """
    schedule = errors.SCHEDULES["cosine"]
    ends = likelihood.flow_times(schedule, 1, errors.LEVEL, 0.999)
    walks = {
        "grid": errors.grid(schedule, 50, 0.999, **EXACT),
        "tolerance": errors.within(schedule, 1e-4, 0.999, **EXACT),
        "noise": errors.within(schedule, 1e-4, 0.999),
    }
    grid, tolerance, noise = rows("cosine", walks, ends)
    for row in (grid, tolerance):
        assert (row.found <= BAR * row.said).all(), errors.line(row)
    assert grid.found.max() < 1e-3
    assert tolerance.found.max() < 2e-5
    assert tolerance.said.max() <= 1e-4
    assert noise.found.max() > 0.02  # what the solver alone says of its error would not do
    assert noise.found.mean() / BAR < noise.said.mean() < BAR * noise.found.mean()


def test_a_clipped_cosine_is_followed_from_where_its_entries_lead_on(x64):
    """Control: from t = 1 a network of eps that is 3 % wrong is lost, and no halving of steps tells."""
    schedule = errors.TABLES["cosine table"]
    times = likelihood.table_times(schedule, 1000, 200)
    assert 0.99 < times[0] < 1
    walk = errors.on_grid(schedule, times, likelihood.HEUN, **EXACT)
    (row,) = rows("cosine table", {"Heun": walk}, times[[0, -1]])
    assert (row.found <= BAR * row.said).all(), errors.line(row)
    assert row.found.max() < 2e-3
    entries = np.arange(1, 1001) / 1000
    u = likelihood.grids.even_clock(schedule, entries, likelihood.grids.softness(schedule))
    whole = entries[np.unique(np.abs(u - np.linspace(u[0], u[-1], 201)[:, None]).argmin(1))][::-1]
    walk = errors.on_grid(schedule, whole, likelihood.HEUN, **EXACT)
    (row,) = rows("cosine table", {"Heun": walk}, whole[[0, -1]])
    assert row.found.max() > 0.1
    assert not (row.found <= BAR * row.said).all()


@pytest.mark.parametrize("name", errors.KINDS)
def test_networks_are_as_wrong_as_their_parameterisation_makes_them(x64, name):
    """The table of `KINDS`, by the parameterisations' own formulas."""
    schedule = errors.SCHEDULES["VP linear"]
    made = getattr(parameterizations, name)
    told = {"x0": (lambda t: t,), "edm": (schedule, 0.5)}.get(name, (schedule, lambda t: t))
    read = made(*told).read
    x, t = np.ones((1, 3)), np.array([0.3])
    sigma = schedule.sigma(t)
    unit = 1 / sigma if name == "score" else 1.0
    apart = read(x + 0.01 * unit, x, t).mean - read(x, x, t).mean
    want = 0.01 * errors.KINDS[name](sigma / schedule.alpha(t))
    np.testing.assert_allclose(np.abs(apart), np.tile(want, (1, 3)), rtol=1e-6)
