"""Published schedulers that step in log-SNR: DPM-Solver's kin."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np

from diffusion_jax.core.protocols import Orders
from diffusion_jax.diffusion import processes, samplers
from diffusion_jax.diffusion.samplers import dpm, singlestep
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.pretrained.published import Values
from diffusion_jax.pretrained.schedulers import in_flow, tables
from diffusion_jax.pretrained.schedulers.chains import BOUNDS, Sampling, last_entry, parts
from diffusion_jax.pretrained.schedulers.curves import CURVES, curve
from diffusion_jax.pretrained.schedulers.tables import TABLE, ZERO_SNR

SOLVER = TABLE | BOUNDS | CURVES | {"timestep_spacing": "linspace", "solver_order": 2, "lower_order_final": True}
DPM = (
    SOLVER
    | in_flow.SOLVER
    | {
        "algorithm_type": "dpmsolver++",
        "solver_type": "midpoint",
        "final_sigmas_type": "zero",
        "lambda_min_clipped": -float("inf"),
        "variance_type": None,
    }
)
MULTISTEP = DPM | ZERO_SNR | {"euler_at_final": False, "use_lu_lambdas": False}
SINGLESTEP = DPM | {"lower_order_final": False}
UNIPC = (
    SOLVER
    | ZERO_SNR
    | in_flow.SOLVER
    | {
        "predict_x0": True,
        "solver_type": "bh2",
        "final_sigmas_type": "zero",
        "disable_corrector": [],
        "sigma_min": None,
        "sigma_max": None,
        "shift_terminal": None,
    }
)
DEIS = SOLVER | in_flow.SOLVER | {"algorithm_type": "deis", "solver_type": "logrho"}
FORMS = {"dpmsolver++": dpm.data(), "sde-dpmsolver++": dpm.data(1.0), "dpmsolver": dpm.NOISE}
Rule = TypeVar("Rule")

SECOND = {"midpoint": dpm.midpoint, "heun": dpm.exact}
THIRD = {"midpoint": singlestep.straight, "heun": singlestep.curved}
CURVATURE = 0.5  # of diffusers' multistep solver of third order
SHORT = 15  # chains of fewer steps end by lower orders
NO_LENGTH = "its last step would have no length: final_sigmas_type must be zero"


def dpm_multistep(config: Mapping[str, Any]) -> Sampling:
    """DPMSolverMultistepScheduler: `samplers.dpm_multistep`."""
    values = Values(config, MULTISTEP, "DPMSolverMultistepScheduler")
    order, last = _order(values), last_entry(values)
    kind = _kind(values, FORMS | {"sde-dpmsolver": dpm.NOISE_SDE}, last)
    if order == 3 and values["algorithm_type"].startswith("sde"):
        values.refuse("solver_order", 3, "of the SDE it is of lower order in diffusers, by a sign")
    lower, euler = values.only("lower_order_final", False, True), values.only("euler_at_final", False, True)
    orders = _ending(order, lower, euler or not last)
    # Only so is a step of no length not NaN.
    still = order < 3 and values["solver_type"] == "midpoint" and not values["algorithm_type"].startswith("sde")
    orders, rule = _but_the_last(orders) if last and curve(values) else orders, _rule(values, SECOND)

    def make(schedule):
        return samplers.dpm_multistep(schedule, kind, orders, rule, CURVATURE)

    return _chain(values, last, make, in_flow.below_the_top, "" if still else NO_LENGTH, _clipped(values))


def dpm_singlestep(config: Mapping[str, Any]) -> Sampling:
    """DPMSolverSinglestepScheduler: `samplers.dpm_singlestep`. It knows of no spacing but linspace."""
    config = {**config, "timestep_spacing": "linspace", "steps_offset": 0}
    values = Values(config, SINGLESTEP, "DPMSolverSinglestepScheduler")
    order, last = _order(values), last_entry(values)
    kind = _kind(values, FORMS, last)
    if order == 3 and values["algorithm_type"].startswith("sde") and values["solver_type"] == "heun":
        values.refuse("solver_order", 3, "of the SDE, with heun, it is of lower order in diffusers, by a sign")
    if values["thresholding"] and values["algorithm_type"] == "dpmsolver":
        values.refuse("thresholding", True, "of eps: diffusers cannot do it")
    lower = values.only("lower_order_final", False, True)

    def orders(steps):
        found = np.arange(steps) % order + 1
        if (lower or not last) and order > 1 and steps % order == 0:
            found[-2:] = order - 1, 1  # the last cycle is cut in two
        if not last:
            found[-1] = 1
        return found

    rules = _rule(values, SECOND), _rule(values, THIRD)

    def make(schedule):
        return samplers.dpm_singlestep(schedule, kind, orders, *rules)

    return _chain(values, last, make, in_flow.below_the_top, NO_LENGTH, _clipped(values))


def unipc(config: Mapping[str, Any]) -> Sampling:
    """UniPCMultistepScheduler: `samplers.unipc`."""
    values = Values(config, UNIPC, "UniPCMultistepScheduler")
    order, last = _order(values), last_entry(values)
    gains = {"bh2": samplers.bh2, "bh1": samplers.bh1} | dict.fromkeys(("midpoint", "heun", "logrho"), samplers.bh2)
    gain = gains[values.only("solver_type", *gains)]
    values.only("disable_corrector", [])
    lower = values.only("lower_order_final", False, True)
    if not values.only("predict_x0", False, True):
        if values["thresholding"]:
            values.refuse("thresholding", True, "without predict_x0 diffusers passes over it")
        if not last:
            values.refuse("final_sigmas_type", "zero", "without predict_x0 it ends at sigma_min")
    if not last and gain is samplers.bh1:
        values.refuse("solver_type", "bh1", "to sigma 0 it ends in NaN in diffusers")
    if not (lower or last or order == 1):
        values.refuse("lower_order_final", False, "a last step to sigma 0 is of first order")

    def orders(steps):
        return np.minimum(order, np.arange(steps, 0, -1)) if lower else np.full(steps, order)

    form = dpm.data() if values["predict_x0"] else dpm.NOISE

    def make(schedule):
        return samplers.unipc(schedule, orders, form, gain)

    return _chain(values, last, make, in_flow.from_the_top(in_flow.terminal_of(values)), NO_LENGTH)


def deis(config: Mapping[str, Any]) -> Sampling:
    """DEISMultistepScheduler: `samplers.deis`, ending at the table's first entry."""
    values = Values(config, DEIS, "DEISMultistepScheduler")
    values.only("algorithm_type", "deis", "dpmsolver", "dpmsolver++")
    values.only("solver_type", "logrho", "midpoint", "heun", "bh1", "bh2")
    order, lower = _order(values), values.only("lower_order_final", False, True)
    orders = _ending(order, lower, False)
    orders = _but_the_last(orders) if curve(values) else orders
    if values["use_flow_sigmas"]:
        values.refuse("use_flow_sigmas", True, "its last step has no length in diffusers: the image stays noisy")
    return _chain(values, 1, lambda schedule: samplers.deis(schedule, orders), in_flow.below_the_top)


def _chain(
    values: Values,
    last: int,
    make: Callable[[Schedule], samplers.Sampler],
    flow: in_flow.Spaced,
    idle: str = "",
    top: int | None = None,
) -> Sampling:
    """The chain of the sampler `make(schedule)`; of a flow at the times `flow`, or as of `tables.by_log_snr`."""
    if values.only("use_flow_sigmas", False, True, None):
        return in_flow.solver(values, last, make, flow)
    walk = tables.by_log_snr(values, last, idle, top)
    return parts(values, walk, processes.gaussian(walk.schedule), make(walk.schedule))


def _order(values: Values) -> int:
    return values.only("solver_order", 1, 2, 3)


def _kind(values: Values, forms: dict, last: int) -> dpm.Form:
    values.only("variance_type", None)
    kind = values.only("algorithm_type", *forms)
    if not last and not kind.endswith("++"):
        values.refuse("final_sigmas_type", "zero", f"{kind} ends at sigma_min")
    return forms[kind]


def _rule(values: Values, kinds: Mapping[str, Rule]) -> Rule:
    return kinds[values.only("solver_type", *kinds)]


def _ending(order: int, lower: bool, first_at_last: bool) -> Orders:
    """The orders of a chain whose last two steps are of orders 2 and 1, where it is short or they have to be."""

    def orders(steps):
        found, left = samplers.at_most(order)(steps), np.arange(steps)[::-1]
        short = lower and steps < SHORT
        found = np.where((left == 1) & short, np.minimum(found, 2), found)
        return np.where((left == 0) & (short or first_at_last), 1, found)

    return orders


def _but_the_last(orders: Orders) -> Orders:
    """The orders of all steps but the last, which is not made."""
    return lambda steps: orders(steps + 1)[:-1]


def _clipped(values: Values) -> int:
    """How many entries of the table have at least the log-SNR, lambda, at which it is cut off."""
    lowest = values["lambda_min_clipped"]
    if lowest in ("-inf", "-Infinity"):
        lowest = -float("inf")
    if type(lowest) not in (int, float) or not lowest < 0:
        values.refuse("lambda_min_clipped", lowest, "a number below 0 is expected")
    kept = int((-np.log(tables.levels(tables.finite_betas(values))[1:]) >= lowest).sum())
    if kept < 2:
        values.refuse("lambda_min_clipped", lowest, "it leaves less than two entries of the table")
    return kept
