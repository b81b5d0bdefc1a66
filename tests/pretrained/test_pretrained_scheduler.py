"""What of a scheduler_config.json is refused, and that nothing is passed over."""

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion.schedules import cosine_betas
from diffusion_jax.diffusion.timesteps import check_grid
from diffusion_jax.pretrained.schedulers import curves, scheduler

DDPM = {"_class_name": "DDPMScheduler"}

REFUSED = {
    "no name": ({}, "scheduler 'None' is not known; of use are DDPMScheduler, "),
    "another scheduler": ({"_class_name": "TCDScheduler"}, "scheduler 'TCDScheduler' is not known"),
    "beyond the table": ({"_class_name": "LCMScheduler", "original_inference_steps": 1001}, "at most num_train"),
    "betas": (DDPM | {"beta_schedule": "laplace"}, "beta_schedule = 'laplace' is not supported; only 'linear' or"),
    "a prediction": (DDPM | {"prediction_type": "flow"}, "prediction_type = 'flow' is not supported; only 'epsilon'"),
    "a variance": (DDPM | {"variance_type": "fixed_large_log"}, "variance_type = 'fixed_large_log' is not supported"),
    "a spacing": (DDPM | {"timestep_spacing": "random"}, "timestep_spacing = 'random' is not supported"),
    "an offset of text": (DDPM | {"steps_offset": "1"}, "steps_offset = '1' is not supported; an integer from 0"),
    "no number": (DDPM | {"beta_end": None}, "beta_end = None is not supported; a number from 0 to 1"),
    "short betas": (DDPM | {"trained_betas": [0.1]}, "trained_betas = [0.1] is not supported; a list of num_train"),
    "betas in lists": (DDPM | {"num_train_timesteps": 1, "trained_betas": [["a"]]}, "trained_betas = [['a']] is"),
    "betas without end": (DDPM | {"num_train_timesteps": 1, "trained_betas": [10**400]}, "a list of num_train_time"),
    "no rho": (
        {"_class_name": "CMStochasticIterativeScheduler", "rho": 0},
        "rho = 0 is not supported; a number from 1e-06 to 1e+06 is expected",
    ),
    "levels of text": ({"_class_name": "CMStochasticIterativeScheduler", "sigma_max": "80"}, "sigma_max = '80' is"),
    "betas of text": (DDPM | {"trained_betas": "0.1"}, "trained_betas = '0.1' is not supported"),
    "an unknown value": (DDPM | {"use_magic": True}, "DDPMScheduler: use_magic = True is not supported"),
    "no boolean": (DDPM | {"clip_sample": 1}, "clip_sample = 1 is not supported; only False or True"),
    "velocity of unCLIP": (
        {"_class_name": "UnCLIPScheduler", "prediction_type": "v_prediction"},
        "'v_prediction' is",
    ),
    "another table of unCLIP": (
        {"_class_name": "UnCLIPScheduler", "beta_schedule": "linear"},
        "only 'squaredcos_cap",
    ),
    "unCLIP's bound": (
        {"_class_name": "UnCLIPScheduler", "clip_sample_range": "5"},
        "UnCLIPScheduler: clip_sample_r",
    ),
    "a curve": (
        {"_class_name": "DPMSolverMultistepScheduler", "use_beta_sigmas": True},
        "DPMSolverMultistepScheduler: use_beta_sigmas = True is not supported; diffusers cuts",
    ),
    "a curve's end of text": (
        {"_class_name": "EulerDiscreteScheduler", "use_karras_sigmas": True, "sigma_max": "80"},
        "sigma_max = '80' is not supported; a number from",
    ),
    "a log-SNR of text": (
        {"_class_name": "DPMSolverMultistepScheduler", "lambda_min_clipped": "-5"},
        "lambda_min_clipped = '-5' is not supported; a number below 0",
    ),
    "a log-SNR that leaves nothing": (
        {"_class_name": "DPMSolverSinglestepScheduler", "num_train_timesteps": 10, "beta_start": 0.9, "beta_end": 0.9}
        | {"lambda_min_clipped": -1},
        "leaves less than two entries",
    ),
    "fourth order": (
        {"_class_name": "DPMSolverMultistepScheduler", "solver_order": 4},
        "solver_order = 4 is not supported; only 1 or 2 or 3",
    ),
    "levels upside down": (
        {"_class_name": "CMStochasticIterativeScheduler", "sigma_min": 90.0},
        "sigma_min = 90.0 is not supported; a number between 0 and sigma_max = 80.0",
    ),
}


@pytest.mark.parametrize(("config", "message"), REFUSED.values(), ids=REFUSED)
def test_values_that_are_not_implemented_are_named(config, message):
    with pytest.raises(InputError) as raised:
        scheduler.sampling(config)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_quantile_function():
    """Beta(1/2, 1/2) and Beta(1, 1) have theirs in closed form; the published one is between them."""
    share = np.linspace(0, 1, 101)
    known = {0.5: np.sin(np.pi / 2 * share) ** 2, 1.0: share}
    for a, wanted in known.items():
        np.testing.assert_allclose(curves.beta_quantile(share, a), wanted, rtol=1e-12, atol=1e-15)
    inner = curves.beta_quantile(share)[1:50]
    assert (known[0.5][1:50] < inner).all()
    assert (inner < known[1.0][1:50]).all()


def test_notes_and_values_that_are_off_do_not_matter():
    config = DDPM | {"_diffusers_version": "0.1", "tensor_format": None, "new": False, "skip_prk_steps": True}
    assert scheduler.sampling(config).grid(1000)[0] == 1


@pytest.mark.parametrize("steps", [0, 1001])
@pytest.mark.parametrize("name", ["DDPMScheduler", "DPMSolverMultistepScheduler", "CMStochasticIterativeScheduler"])
def test_numbers_of_steps_are_checked(name, steps):
    with pytest.raises(InputError, match="number of sampling steps"):
        scheduler.sampling({"_class_name": name}).grid(steps)


GRIDS = {
    "midway": ("DDIMScheduler", {}, 501, "501 leading steps would start at entry 501 of 1000, .*; take 500 or 950$"),
    "one less": ("DPMSolverMultistepScheduler", {"timestep_spacing": "leading"}, 500, "take 499 or 949$"),
    "a single step": ("PNDMScheduler", {"skip_prk_steps": True}, 1, "start at entry 1 of 1000, .*take 2$"),
    "half a step": ("PNDMScheduler", {}, 40, "40 steps of 1000 are 25 entries long; take a number"),
    "too few to start": ("PNDMScheduler", {}, 2, "takes at least 4: 2 steps of 1000"),
    "linspace": ("DDIMScheduler", {"timestep_spacing": "linspace"}, 1, "1 linspace step would look at index 0"),
    "twice": ("DPMSolverMultistepScheduler", {}, 1000, "fall on the same entries of the table; take fewer"),
}


@pytest.mark.parametrize(("name", "values", "steps", "message"), GRIDS.values(), ids=GRIDS)
def test_grids_that_do_not_fit_say_what_does(name, values, steps, message):
    with pytest.raises(InputError, match=message):
        scheduler.sampling({"_class_name": name} | values).grid(steps)


def test_an_offset_beyond_the_table_is_refused():
    with pytest.raises(InputError, match="first index is 1000 of 1000; take fewer than 1000 steps"):
        scheduler.sampling(DDPM | {"steps_offset": 1}).grid(1000)


def test_trained_betas_are_taken_as_they_are():
    given = np.linspace(0.1, 0.2, 10)
    found = scheduler.betas(DDPM | {"num_train_timesteps": 10, "trained_betas": list(given)})
    np.testing.assert_array_equal(found, given)


def test_tables_of_noise_are_those_of_their_class():
    """A class's own default; what it does not listen to; what is no table; a name that nobody knows."""
    karlo = {"_class_name": "UnCLIPScheduler"}
    schedule, num = scheduler.table_of(karlo | {"trained_betas": [0.5], "beta_start": 0.5})
    np.testing.assert_allclose(schedule.alpha(np.arange(1, num + 1) / num) ** 2, np.cumprod(1 - cosine_betas(1000)))
    assert scheduler.table_of({"_class_name": "LCMScheduler"}).schedule != schedule
    for config, message in [
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "has no table of betas"),
        ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "has no table of betas"),
        (karlo | {"something_new": 1}, "something_new"),
        ({"_class_name": "Another"}, "'Another' is not known"),
        (karlo | {"num_train_timesteps": 0}, "num_train_timesteps = 0"),
    ]:
        with pytest.raises(InputError, match=message):
            scheduler.table_of(config)


def test_lists_of_indices_end_where_the_chain_does():
    """Euler's at sigma_min; and a curve of levels, or a solver of equal steps, takes no list."""
    euler = {"_class_name": "EulerDiscreteScheduler"}
    assert list(scheduler.sampling(euler).listed([999, 9]) * 1000) == [1000, 10, 0]
    assert list(scheduler.sampling(euler | {"final_sigmas_type": "sigma_min"}).listed([999, 9]) * 1000) == [
        1000,
        10,
        1,
    ]
    assert scheduler.sampling(euler | {"use_karras_sigmas": True}).listed is None
    for name in ("PNDMScheduler", "DDIMScheduler", "FlowMatchEulerDiscreteScheduler"):
        assert scheduler.sampling({"_class_name": name}).listed is None


@pytest.mark.parametrize("steps", [1, 2, 3, 39, 40])
def test_consistency_models_walk_down_from_the_largest_level(steps):
    """All 40 steps would look at sigma_min, where a consistency model returns its input: one less is walked."""
    parts = scheduler.sampling({"_class_name": "CMStochasticIterativeScheduler"})
    times = check_grid(parts.grid(steps))
    assert len(times) == min(steps, 39) + 1
    np.testing.assert_allclose(parts.schedule.sigma(times[:1]), (80**2 - 0.002**2) ** 0.5)
    assert parts.schedule.sigma(times[-1]) == 0
