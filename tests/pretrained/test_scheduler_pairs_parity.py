"""Whole chains of published schedulers against diffusers', for every pair of values that their configs can say.

A covering array has each pair of values of each two names in some row; the number of steps is one of the names.
Every row gives their last image, but for the combinations of `REFUSED`, which say why they cannot. Both sides see
one toy network, the same first noise and the same noise on the way.

Their tables are float32 and put in double precision here; their levels are float32 all the same, and so are some of
their sums: 2e-4 is allowed (1e-6 is usual), and controls must be ten times as far.
"""

import importlib
import itertools
import random
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import samplers
from diffusion_jax.pretrained.schedulers import scheduler

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

SHAPE = (2, 3, 4, 3)
KEY = jax.random.key(0)
TOLERANCE = 2e-4

SPACINGS = ["leading", "trailing", "linspace"]
PREDICTIONS = ["epsilon", "sample", "v_prediction"]
BETAS = ["linear", "scaled_linear", "squaredcos_cap_v2"]
STEPS = {"steps": [10, 7]}  # of 1000: one divides, one does not
TABLE = STEPS | {
    "beta_schedule": BETAS,
    "timestep_spacing": SPACINGS,
    "steps_offset": [0, 1],
    "prediction_type": PREDICTIONS,
}
ZERO = {"rescale_betas_zero_snr": [False, True]}
BOUNDS = {"thresholding": [False, True], "dynamic_thresholding_ratio": [0.995, 0.6], "sample_max_value": [1.0, 1.5]}
CLIP = {"clip_sample": [True, False], "clip_sample_range": [1.0, 0.6]}
CURVES = {f"use_{kind}_sigmas": [False, True] for kind in ("karras", "exponential", "beta")}
FINAL = {"final_sigmas_type": ["zero", "sigma_min"]}
HALF_WAY = TABLE | {
    "beta_schedule": ["linear", "scaled_linear"],  # the cosine's noisiest level, 2e4, is beyond their float32
    "prediction_type": ["epsilon", "v_prediction"],
    "use_exponential_sigmas": [False, True],
}
SPACE = {
    "DDPMScheduler": TABLE
    | ZERO
    | BOUNDS
    | CLIP
    | {"variance_type": ["fixed_small", "fixed_small_log", "fixed_large", "learned_range"]},
    "DDIMScheduler": TABLE | ZERO | BOUNDS | CLIP | {"set_alpha_to_one": [True, False]},
    "PNDMScheduler": TABLE
    | {
        "prediction_type": ["epsilon", "v_prediction"],
        "set_alpha_to_one": [True, False],
        "skip_prk_steps": [True, False],
    },
    "EulerDiscreteScheduler": TABLE | ZERO | CURVES | FINAL | {"sigma_min": [None, 0.1], "sigma_max": [None, 10.0]},
    "DPMSolverMultistepScheduler": TABLE
    | ZERO
    | BOUNDS
    | CURVES
    | FINAL
    | {
        "solver_order": [1, 2, 3],
        "algorithm_type": ["dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver"],
        "solver_type": ["midpoint", "heun"],
        "lower_order_final": [True, False],
        "euler_at_final": [False, True],
        "lambda_min_clipped": [-float("inf"), -1.5],
        "use_lu_lambdas": [False, True],
    },
    "EulerAncestralDiscreteScheduler": TABLE | ZERO | {"prediction_type": ["epsilon", "v_prediction"]},
    "HeunDiscreteScheduler": TABLE | CURVES | CLIP,
    "LMSDiscreteScheduler": TABLE | CURVES,
    "KDPM2DiscreteScheduler": HALF_WAY,
    "KDPM2AncestralDiscreteScheduler": HALF_WAY | {"use_beta_sigmas": [False, True]},
    "DPMSolverSDEScheduler": STEPS
    | CURVES
    | {"timestep_spacing": SPACINGS, "prediction_type": ["epsilon", "v_prediction"]},
    "DPMSolverSinglestepScheduler": STEPS
    | BOUNDS
    | FINAL
    | {
        "beta_schedule": BETAS,
        "prediction_type": PREDICTIONS,
        "use_karras_sigmas": [False, True],
        "solver_order": [1, 2, 3],
        "algorithm_type": ["dpmsolver++", "sde-dpmsolver++", "dpmsolver"],
        "solver_type": ["midpoint", "heun"],
        "lower_order_final": [False, True],
        "lambda_min_clipped": [-float("inf"), -1.5],
    },
    "UniPCMultistepScheduler": TABLE
    | ZERO
    | BOUNDS
    | FINAL
    | {
        "use_karras_sigmas": [False, True],
        "solver_order": [1, 2, 3],
        "predict_x0": [True, False],
        "solver_type": ["bh2", "bh1"],
        "lower_order_final": [True, False],
    },
    "DEISMultistepScheduler": TABLE
    | BOUNDS
    | {"use_karras_sigmas": [False, True], "solver_order": [1, 2, 3], "lower_order_final": [True, False]},
    "LCMScheduler": {name: TABLE[name] for name in ("steps", "beta_schedule", "prediction_type")}
    | ZERO
    | {"thresholding": [False, True], "clip_sample": [False, True], "original_inference_steps": [50, 40]}
    | {"timestep_scaling": [10.0, 0.001]},
    "FlowMatchEulerDiscreteScheduler": STEPS
    | CURVES
    | {"shift": [1.0, 3.0], "shift_terminal": [None, 0.1], "stochastic_sampling": [False, True]},
}


# By class, combinations that are refused, and what the message says.
NOTHING = [({"rescale_betas_zero_snr": True, "prediction_type": "epsilon"}, "eps says nothing of x0")]
RISES = [({"rescale_betas_zero_snr": True, "beta_schedule": "linear"}, "at the end")]
TWO = [(dict.fromkeys(pair, True), "only one") for pair in itertools.combinations(CURVES, 2)]
CUT = [({name: True}, "cuts the network's times off") for name in ("use_exponential_sigmas", "use_beta_sigmas")]
COSINE = [({"use_karras_sigmas": True, "beta_schedule": "squaredcos_cap_v2"}, "cuts the times of this table off")]
KARRAS = [*COSINE, ({"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}, "would have no length")]
STILL = {"use_karras_sigmas": True, "final_sigmas_type": "sigma_min"}
LU = {"use_lu_lambdas": True, "final_sigmas_type": "sigma_min"}
FLOW = {"use_flow_sigmas": True, "prediction_type": "flow_prediction"}
# A last step of no length is NaN in diffusers, or may be.
MOVING = [{"solver_order": 3}, {"solver_type": "heun"}]
MOVING += [{"algorithm_type": name} for name in ("sde-dpmsolver", "sde-dpmsolver++")]
REFUSED = {
    "DDPMScheduler": NOTHING,
    "DDIMScheduler": NOTHING,
    "PNDMScheduler": [
        ({"timestep_spacing": "linspace"}, "walks in equal steps"),
        ({"timestep_spacing": "trailing", "steps": 7}, "walks in equal steps"),
    ],
    "EulerDiscreteScheduler": NOTHING + RISES + TWO,
    "DPMSolverMultistepScheduler": NOTHING
    + RISES
    + [
        *CUT,
        *COSINE,
        *((STILL | change, "would have no length|only one") for change in MOVING),
        ({"use_lu_lambdas": True, "beta_schedule": "squaredcos_cap_v2"}, "cuts the times of this table off"),
        ({"use_lu_lambdas": True, "use_karras_sigmas": True}, "only one"),
        *((LU | change, "would have no length|only one") for change in MOVING),
        ({"algorithm_type": "sde-dpmsolver", "solver_order": 3}, "by a sign|ends at sigma_min"),
        ({"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, "by a sign"),
        ({"algorithm_type": "dpmsolver", "final_sigmas_type": "zero"}, "ends at sigma_min"),
        ({"algorithm_type": "sde-dpmsolver", "final_sigmas_type": "zero"}, "ends at sigma_min"),
        ({"algorithm_type": "sde-dpmsolver", "use_karras_sigmas": True}, "ends at sigma_min"),
        ({"algorithm_type": "sde-dpmsolver", "use_lu_lambdas": True}, "ends at sigma_min"),
    ],
    "EulerAncestralDiscreteScheduler": NOTHING + RISES,
    "HeunDiscreteScheduler": TWO,
    "LMSDiscreteScheduler": TWO,
    "KDPM2DiscreteScheduler": [({"use_karras_sigmas": True}, "rounds the times"), *TWO[2:]],
    "KDPM2AncestralDiscreteScheduler": [({"use_karras_sigmas": True}, "rounds the times"), *TWO[2:]],
    "DPMSolverSDEScheduler": [*TWO, ({"noise_sampler_seed": 3}, "only None")],
    "DPMSolverSinglestepScheduler": KARRAS
    + [
        ({"algorithm_type": "dpmsolver", "final_sigmas_type": "zero"}, "ends at sigma_min"),
        ({"algorithm_type": "dpmsolver", "use_karras_sigmas": True}, "ends at sigma_min"),
        ({"algorithm_type": "dpmsolver", "thresholding": True}, "cannot do it|ends at sigma_min"),
        ({"algorithm_type": "sde-dpmsolver++", "solver_type": "heun", "solver_order": 3}, "by a sign"),
    ],
    "UniPCMultistepScheduler": NOTHING
    + RISES
    + KARRAS
    + [
        ({"predict_x0": False, "final_sigmas_type": "zero"}, "ends at sigma_min"),
        ({"predict_x0": False, "use_karras_sigmas": True}, "ends at sigma_min"),
        ({"predict_x0": False, "thresholding": True}, "passes over it"),
        ({"solver_type": "bh1", "final_sigmas_type": "zero"}, "ends in NaN"),
        ({"solver_type": "bh1", "use_karras_sigmas": True}, "ends in NaN"),
        ({"lower_order_final": False, "final_sigmas_type": "zero"}, "is of first order"),
        ({"lower_order_final": False, "use_karras_sigmas": True}, "is of first order"),
        (FLOW | {"use_karras_sigmas": True}, "takes its levels for times"),
        (FLOW | {"final_sigmas_type": "sigma_min"}, "is of another kind of noise"),
        ({"use_flow_sigmas": True}, "only 'flow_prediction'"),
        (FLOW | {"shift_terminal": 0.1}, "rounding decides to what"),
    ],
    "DEISMultistepScheduler": [*CUT, *COSINE, (FLOW, "the image stays noisy")],
    "LCMScheduler": [*NOTHING, ({"original_inference_steps": 5}, "must lie in 1, ..., 5, not 10")],
    "FlowMatchEulerDiscreteScheduler": [*TWO, ({"use_dynamic_shifting": True}, "images' size")],
}


def pairs(row):
    return set(itertools.combinations(sorted(row.items()), 2))


def allowed(row, name):
    return not any(part.items() <= row.items() for part, _ in REFUSED[name])


def covering(name, seed=0):
    """Rows that hold every pair of values of each two names of a class, but for what is refused."""
    space, chance = SPACE[name], random.Random(seed)
    names = sorted(space)
    every = {((a, x), (b, y)) for a, b in itertools.combinations(names, 2) for x in space[a] for y in space[b]}
    missing, rows = {pair for pair in every if allowed(dict(pair), name)}, []
    while missing:
        start, tried = dict(chance.choice(sorted(missing, key=repr))), []
        while len(tried) < 12:
            row = dict(start)
            for one in chance.sample([n for n in names if n not in row], len(names) - len(row)):
                values = [v for v in space[one] if allowed(row | {one: v}, name)] or space[one]
                row[one] = max(values, key=lambda v: (len(pairs(row | {one: v}) & missing), chance.random()))
            tried += [row] if allowed(row, name) else []
        best = max(tried, key=lambda row: len(pairs(row) & missing))
        rows.append(best)
        missing -= pairs(best)
    return rows


def test_a_covering_array_covers():
    rows, space = covering("DDIMScheduler"), SPACE["DDIMScheduler"]
    found = set().union(*map(pairs, rows))
    for a, b in itertools.combinations(sorted(space), 2):
        for pair in itertools.product(((a, x) for x in space[a]), ((b, y) for y in space[b])):
            assert (pair in found) == allowed(dict(pair), "DDIMScheduler")
    assert len(rows) < 25


# ---- Chains.


def network(xp, x, time):
    """Neither linear nor entrywise, beyond [-1, 1], and sensitive to time."""
    return 1.5 * xp.tanh(1.1 * x - 0.4 * xp.roll(x, 1, -1) + 2.0 * (time / 1000 - 0.5))


def fraction(xp, x):
    """What stands for a learned variance."""
    return xp.tanh(0.7 * x)


def class_of(name, monkeypatch):
    """Their class. That of one imports torchsde, of which it takes nothing but the noise, which is ours here."""
    if name != "DPMSolverSDEScheduler":
        return getattr(diffusers, name)
    monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))
    return importlib.import_module("diffusers.schedulers.scheduling_dpmsolver_sde").DPMSolverSDEScheduler


class Path:
    """In the place of its noise: of a Brownian path, first until half-way of a step, and then until its end."""

    def __init__(self, keys):
        self.keys, self.number, self.half_way = keys, 0, None

    def __call__(self, v, to):
        if self.half_way is None:
            self.number += 1
            first, self.fresh = (normal(some) for some in rng.split(rng.each(self.keys, self.number), 2))
            self.half_way = to, first
            return first
        (at, first), self.half_way = self.half_way, None
        path = (v - at) / (v - to)
        return path**0.5 * first + (1 - path) ** 0.5 * self.fresh


def theirs(config, monkeypatch):
    """Their scheduler, its table in double precision."""
    found = class_of(config["_class_name"], monkeypatch).from_config(config)
    if not hasattr(found, "alphas_cumprod"):
        return found
    table = 1 - scheduler.betas(dict(found.config) | {"prediction_type": "sample", "use_flow_sigmas": False})
    table = np.cumprod(table)
    if table[-1] == 0 and found.alphas_cumprod[-1] > 0:
        table[-1] = 2.0**-24
    found.alphas_cumprod = torch.from_numpy(table)
    if hasattr(found, "final_alpha_cumprod"):
        found.final_alpha_cumprod = torch.as_tensor(1.0 if found.config.set_alpha_to_one else table[0], dtype=float)
    return found


def sharpened(found, levels):
    """Their levels in double precision, where they are ours but for float32's rounding."""
    if isinstance(getattr(found, "sigmas", None), torch.Tensor) and not hasattr(found, "sigmas_interpol"):
        near = np.abs(found.sigmas.numpy()[:, None] - levels).argmin(axis=1)
        np.testing.assert_allclose(found.sigmas, levels[near], rtol=2e-6, atol=1e-7)
        found.sigmas = torch.from_numpy(levels[near])


def normal(keys):
    return torch.from_numpy(np.array(rng.normal_like(keys, jnp.zeros(SHAPE))))


def drawn(keys, number):
    return normal(rng.each(keys, number))


def flows(config):
    return config["_class_name"].startswith("Flow") or config.get("use_flow_sigmas", False)


def learned(config):
    return config.get("variance_type") == "learned_range"


def our_image(config, steps):
    """Of a chain in operations that are compiled one by one."""
    parts = scheduler.sampling(config)

    def apply(params, x, time):
        said = network(jnp, x, time.reshape(-1, 1, 1, 1))
        return jnp.concatenate([said, fraction(jnp, x)], axis=-1) if learned(config) else said

    sample_fn = samplers.make_sample_fn(
        apply,
        parts.parameterization,
        parts.process,
        parts.sampler,
        parts.grid(steps),
        SHAPE[0],
        SHAPE[1:],
        (*parts.own, parts.variance),
    )
    with jax.disable_jit():
        return np.asarray(sample_fn(None, KEY))


def their_image(config, steps, monkeypatch):
    found, parts = theirs(config, monkeypatch), scheduler.sampling(config)
    found.set_timesteps(steps)
    times = parts.grid(steps)
    with np.errstate(divide="ignore"):
        sharpened(found, parts.schedule.sigma(times) / np.where(flows(config), 1.0, parts.schedule.alpha(times)))
    keys = rng.per_example(KEY, jnp.arange(SHAPE[0]))
    noise = (drawn(keys, n) for n in itertools.count(1))
    module = type(found).__module__
    monkeypatch.setattr(f"{module}.randn_tensor", lambda *_, **__: next(noise), raising=False)
    monkeypatch.setattr(f"{module}.BrownianTreeNoiseSampler", lambda *_: Path(keys), raising=False)
    x = drawn(keys, 0) * getattr(found, "init_noise_sigma", 1.0)
    for t in found.timesteps:
        seen = getattr(found, "scale_model_input", lambda x, t: x)(x, t)
        output = network(torch, seen, t.double())
        if learned(config):
            output = torch.cat([output, fraction(torch, seen)], dim=1)
        x = found.step(output, t, x).prev_sample.double()
    return x.numpy()


def distance(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", SPACE)
def test_chains_are_equal(monkeypatch, name):
    found = {}
    for row in covering(name):
        config = {"_class_name": name} | row
        steps = config.pop("steps")
        found[str(row)] = distance(our_image(config, steps), their_image(config, steps, monkeypatch))
    print(name, len(found), "equal, at most", max(found.values()))
    assert not {row: far for row, far in found.items() if not far < TOLERANCE}


SHIFTED = FLOW | {"flow_shift": 3.0}
FLOWS = [
    ("DPMSolverMultistepScheduler", {"solver_order": 3}, 10),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "thresholding": True}, 7),
    ("DPMSolverSinglestepScheduler", {"solver_type": "heun"}, 8),
    ("UniPCMultistepScheduler", {}, 7),
    ("UniPCMultistepScheduler", {"flow_shift": 1.0, "shift_terminal": 0.1237, "solver_order": 3}, 10),
]


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "values", "steps"), FLOWS)
def test_chains_of_flows_are_equal(monkeypatch, name, values, steps):
    config = {"_class_name": name} | SHIFTED | values
    there = their_image(config, steps, monkeypatch)
    assert distance(our_image(config, steps), there) < TOLERANCE
    assert distance(our_image(config | {"flow_shift": 2.0}, steps), there) > 10 * TOLERANCE


WRONG = {
    "bounds": ("DDIMScheduler", {"clip_sample_range": 0.6, "set_alpha_to_one": True}, {"clip_sample": False}),
    "a shorter second order": ("DPMSolverMultistepScheduler", {}, {"solver_order": 1}),
    "the other rule": ("DPMSolverMultistepScheduler", {}, {"solver_type": "heun"}),
    "the other gain": ("UniPCMultistepScheduler", {"final_sigmas_type": "sigma_min"}, {"solver_type": "bh1"}),
    "without noise": ("KDPM2AncestralDiscreteScheduler", {}, {"_class_name": "KDPM2DiscreteScheduler"}),
    "another curve": ("LMSDiscreteScheduler", {"use_karras_sigmas": True}, {"use_karras_sigmas": False}),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "values", "change"), WRONG.values(), ids=WRONG)
def test_a_small_change_is_seen(monkeypatch, name, values, change):
    """Controls."""
    config = {"_class_name": name} | values
    found = distance(our_image(config | change, 10), their_image(config, 10, monkeypatch))
    assert found > 10 * TOLERANCE


@pytest.mark.parametrize(
    ("name", "part", "message"),
    [(name, *one) for name, parts in REFUSED.items() for one in parts],
)
def test_what_is_refused(name, part, message):
    said = {} if flows({"_class_name": name}) else {"prediction_type": "v_prediction"}
    config = {"_class_name": name} | said | part
    steps = config.pop("steps", 10)
    with pytest.raises(InputError, match=message):
        scheduler.sampling(config).grid(steps)
