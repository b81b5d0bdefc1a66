import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import schedules, timesteps

GRIDS = {
    "uniform": timesteps.uniform(10, 1000),
    "leading": timesteps.leading(10, 1000),
    "quadratic": timesteps.quadratic(10, 1000),
    "respaced": timesteps.respaced(10, 1000),
    "sections": timesteps.sections((5, 3, 2), 1000),
    "strided": timesteps.strided(10, 1000),
    "listed": timesteps.listed(range(900, 0, -90), 1000),
    "linear": timesteps.linear(10),
    "log_snr": timesteps.log_snr(schedules.vp_linear(), 10),
    "karras": timesteps.karras(schedules.edm(), 10),
    "polyexponential": timesteps.polyexponential(schedules.edm(), 10, rho=2.0),
}


@pytest.mark.parametrize("grid", GRIDS.values(), ids=GRIDS)
def test_a_grid_falls_to_0_in_as_many_steps_as_asked_for(grid):
    assert grid.dtype == np.float64
    assert len(timesteps.check_grid(grid)) == 11
    assert grid[-1] == 0


@pytest.mark.parametrize("name", ["uniform", "leading", "quadratic", "respaced"])
@pytest.mark.parametrize("steps", [2, 7, 50, 100])
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


def test_a_list_of_indices():
    times = timesteps.listed([999, 800, 799, 0], 1000)
    np.testing.assert_array_equal(times * 1000, [1000, 801, 800, 1, 0])
    schedules.from_betas(schedules.linear_betas(1000)).alpha(times)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "a list of integers"),
        ([0.5, 0.1], "a list of integers"),
        ([True, False], "a list of integers"),
        ([[3, 2]], "a list of integers"),
        ([3, 3], "fall from noise to data; 3 comes after 3"),
        ([1, 2], "fall from noise to data; 2 comes after 1"),
        ([1000, 2], "index 1000 of a grid"),
        ([5, -1], "fall from noise to data; -1|index -1"),
        ([-1], "index -1 of a grid"),
    ],
)
def test_lists_that_do_not_fit_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        timesteps.listed(given, 1000)


def indices(times, num):
    return list(np.rint(times[:-1] * num - 1).astype(int))[::-1]


def walked(counts, num):
    """Improved DDPM's sections, walked index by index: its stride is added up, and what comes is rounded."""
    found, begin = set(), 0
    for number, count in enumerate(counts):
        size = num // len(counts) + (number < num % len(counts))
        at, stride = 0.0, (size - 1) / (count - 1) if count > 1 else 1
        for _ in range(count):
            found.add(begin + round(at))
            at += stride
        begin += size
    return sorted(found)


@pytest.mark.parametrize("num", [100, 1000, 4000])
def test_respaced_is_the_original_for_every_number_of_steps(num):
    """Sums and products of the stride part at ties: for 282 of the 1000 numbers at num = 1000."""
    for steps in range(1, num + 1, 1 if num <= 1000 else 7):
        assert indices(timesteps.respaced(steps, num), num) == walked([steps], num), steps


def test_sums_of_the_stride_are_not_products():
    """The control: what was taken for the spacing before."""
    products = [np.rint(np.linspace(999, 0, n))[::-1] for n in range(1, 1001)]
    assert sum(list(products[n - 1]) != walked([n], 1000) for n in range(2, 1001)) == 282
    assert 499 in indices(timesteps.respaced(21, 1000), 1000)
    assert 500 in products[20]


@pytest.mark.parametrize("counts", [(10, 15, 20), (0, 5), (334, 333, 333), (1, 1, 1, 7), (1000,), (2,)])
def test_sections_are_the_original_s(counts):
    assert indices(timesteps.sections(counts, 1000), 1000) == walked(counts, 1000)


def test_strided_takes_the_first_stride_that_gives_as_many_steps():
    for steps in range(1, 101):
        strides = [c for c in range(1, 100) if len(range(0, 100, c)) == steps]
        if strides:
            assert indices(timesteps.strided(steps, 100), 100) == list(range(0, 100, strides[0]))
        else:
            with pytest.raises(InputError, match=f"no stride makes {steps} steps of 100; take "):
                timesteps.strided(steps, 100)


@pytest.mark.parametrize("num", [1, 2, 10, 100, 1000])
def test_leading_starts_where_the_prior_is_or_says_what_fits(num):
    """No more is left out at the noisy end than the last stride and a twentieth; what is advised fits."""
    for steps in range(1, num + 1):
        try:
            first = timesteps.leading(steps, num)[0] * num
            assert first > num - num // steps - num / 20
            assert first > num / 2
        except InputError as error:
            for near in str(error).split("take ")[1].split(" or "):
                timesteps.leading(int(near), num)
        if steps > 1 or num == 1:
            timesteps.leading(timesteps.leading_steps(steps, num), num)
    with pytest.raises(InputError, match=r"501 leading steps would start at entry 501 of 1000.*take 500 or 950$"):
        timesteps.leading(501, 1000)


MISTAKES = {
    "rho = 0": (lambda: timesteps.karras(schedules.edm(), 5, rho=0), "rho > 0, not 0.002, 80 and 0"),
    "upside down": (lambda: timesteps.karras(schedules.edm(), 5, 5.0, 1.0), "0 < sigma_min < sigma_max"),
    "no number": (lambda: timesteps.karras(schedules.edm(), 5, float("nan")), "0 < sigma_min < sigma_max"),
    "no end": (lambda: timesteps.karras(schedules.edm(), 5, sigma_max=float("inf")), "0 < sigma_min < sigma_max"),
    "no step": (lambda: timesteps.linear(0), "at least 1, not 0"),
    "beyond": (lambda: timesteps.linear(5, 1.5), r"a time in \(0, 1\], not at 1.5"),
    "no log-SNR": (lambda: schedules.inverse_log_snr(schedules.edm(), [0.0, np.nan]), "not a number"),
    "too many": (lambda: timesteps.sections((400, 1), 500), "at most 250,250 of 500"),
    "none": (lambda: timesteps.sections((0, 0), 500), "at least 1 in all"),
    "no section": (lambda: timesteps.sections((), 500), "at least 1 in all"),
}


@pytest.mark.parametrize(("make", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


def test_karras_levels_are_the_paper_s():
    levels = timesteps.karras(schedules.edm(), 18) * 80
    ramp = 80 ** (1 / 7) + np.arange(18) / 17 * (0.002 ** (1 / 7) - 80 ** (1 / 7))
    np.testing.assert_allclose(levels[:-1], ramp**7, rtol=1e-9)


def test_polyexponential_levels_are_k_diffusion_s():
    levels = timesteps.polyexponential(schedules.edm(), 18, rho=1.7) * 80
    ramp = np.linspace(1, 0, 18) ** 1.7
    np.testing.assert_allclose(np.log(levels[:-1]), ramp * np.log(80 / 0.002) + np.log(0.002), rtol=1e-9)


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
