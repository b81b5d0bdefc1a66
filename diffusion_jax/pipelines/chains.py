"""How published networks are drawn from: by their scheduler's own sampler, and by others on the same noise."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Apply, Grid
from diffusion_jax.diffusion import parameterizations, processes, samplers, timesteps, variances
from diffusion_jax.methods import improved
from diffusion_jax.methods.compose import Chain, MakeChain, MakeGuide, MoreChains, drawn_by
from diffusion_jax.pretrained.published import Network
from diffusion_jax.pretrained.schedulers.scheduler import Sampling, sampling
from diffusion_jax.training.experiment import MakeSampler

NARROWEST = 1e-20  # of a learned variance, which these samplers do not ask for
# Of any scheduler's config: its table, and what else is not its solver's own.
BETAS = ("num_train_timesteps", "beta_schedule", "beta_start", "beta_end")
BESIDE = (
    *("trained_betas", "prediction_type", "rescale_betas_zero_snr", "timestep_spacing", "steps_offset"),
    *("clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value"),
)


def noise(config: Mapping, sampler: str | None) -> tuple[Mapping, Sampling]:
    """A scheduler's config and its parts; for another sampler, the table alone of one that is not known."""
    try:
        return config, sampling(config)
    except InputError as error:
        if not set(BETAS) <= set(config) or config.get("use_flow_sigmas"):
            raise
        if sampler in (None, "published"):
            raise InputError(f"{error}; or give --sampler ddim, to which its table of betas is enough") from error
    table = {"_class_name": "DDIMScheduler", "clip_sample": False}
    table |= {name: config[name] for name in (*BETAS, *BESIDE) if name in config}
    return table, sampling(table)


def check_told(config: Mapping, scheduler: Mapping):
    """`InputError` for a network that is told noise levels beside a scheduler that tells steps."""
    kind = scheduler["_class_name"]
    if config.get("time_embedding_type") == "fourier" and kind != "ScoreSdeVeScheduler":
        raise InputError(
            f"this network is told noise levels (time_embedding_type = 'fourier'), and {kind} tells steps; "
            "a ScoreSdeVeScheduler tells levels, and pretrained.load reads the network alone"
        )


def made(
    model: Any, how: Sampling, guide: MakeGuide, shape: Any, scheduler: Mapping, more: MoreChains, doubled: bool
) -> dict[str, MakeSampler]:
    """The scheduler's own sampler first, and others on the same noise; `doubled` if the network says a variance."""
    num = scheduler.get("num_train_timesteps", 1000)
    single = scheduler["_class_name"] == "CMStochasticIterativeScheduler"
    usually = {"DDPMScheduler": num, "ScoreSdeVeScheduler": num, "LCMScheduler": 4, "UnCLIPScheduler": 25}
    usual = scheduler.get("steps", usually.get(scheduler["_class_name"], 1 if single else 50))

    def apply(params, *inputs):
        return model.apply({"params": params}, *inputs)

    # Only DDPM's own schedulers know of variances; where a network learned one, ancestral steps take that.
    certain = variances.posterior(how.schedule)
    own = how.variance if scheduler["_class_name"] in ("DDPMScheduler", "UnCLIPScheduler") else certain

    def grid(steps: int | None, usual: int) -> np.ndarray:
        return _grid_up_to(usual, how.grid) if steps is None else how.grid(steps)

    def published(steps: int | None = None) -> Chain:
        return Chain(how.sampler, grid(steps, usual), (*how.own, own))

    def ddim(steps: int | None = None, eta: float = 0.0) -> Chain:
        # As diffusers' pipelines have it, a bound of x0 leaves the noise alone.
        return Chain(samplers.ddim(how.schedule, eta, *how.transforms), grid(steps, min(50, num)), (certain,))

    def dpmpp_2m(steps: int | None = None) -> Chain:
        return Chain(samplers.dpmpp_2m(how.schedule), grid(steps, min(20, num)), (*how.transforms, certain))

    def ancestral(steps: int | None = None) -> Chain:
        sampler = samplers.ancestral(processes.gaussian(how.schedule))
        return Chain(sampler, grid(steps, num), (*how.transforms, how.variance))

    def plms(steps: int | None = None) -> Chain:
        return Chain(samplers.plms(how.schedule), grid(steps, min(50, num)), (*how.transforms, certain))

    chains: dict[str, MakeChain] = {"published": published}
    if not single:
        chains |= {"ddim": ddim, "dpmpp_2m": dpmpp_2m, "ancestral": ancestral}
        if how.schedule.alpha(grid(None, usual)[0]) > 0:
            # Elsewhere, as of a flow, nothing is left of the data where its chain starts.
            chains |= {"plms": plms}
    chains |= more(how)
    others = {} if single or how.anywhere is None else _between(guide, apply, how, shape, doubled)
    return drawn_by(chains, apply, how.parameterization, how.process, shape, guide) | others


def _between(guide: MakeGuide, apply: Apply, how: Sampling, shape, doubled: bool) -> dict[str, MakeSampler]:
    """k-diffusion's samplers that look between the entries of a table."""
    assert how.anywhere is not None
    schedule, parameterization, last = how.anywhere
    if doubled:
        parameterization = parameterizations.learned_range(parameterization, schedule, NARROWEST)
    transforms, usual = (*how.transforms, variances.posterior(how.schedule)), min(20, round(1 / last))

    def levels(steps: int) -> np.ndarray:
        return timesteps.log_snr(schedule, steps, last=last)

    def dpmpp_sde(steps: int | None = None) -> Chain:
        times = _grid_up_to(usual, how.grid) if steps is None else how.grid(steps)
        return Chain(samplers.dpmpp_sde(schedule), times, transforms)

    def dpm_fast(steps: int = 30) -> Chain:
        # As many looks as steps are asked for, the last of them in the step to 0.
        return Chain(samplers.dpm_fast(schedule, steps - 1), levels((steps - 1) // 3 + 2), transforms)

    def dpm_adaptive(steps: int = 2) -> Chain:
        # Its steps are its own: these are where it stops, for a film to look.
        return Chain(samplers.dpm_adaptive(schedule), levels(steps), transforms)

    chains = {"dpmpp_sde": dpmpp_sde, "dpm_fast": dpm_fast, "dpm_adaptive": dpm_adaptive}
    return drawn_by(chains, apply, parameterization, how.process, shape, guide)


def _grid_up_to(most: int, grid: Grid) -> np.ndarray:
    """The grid of as many steps up to `most` as it takes: not all tables and spacings take any number."""
    for steps in range(most, 1, -1):
        try:
            return grid(steps)
        except InputError:
            continue
    return grid(1)


def channels_said(network: Network, *size: int) -> int:
    """Channels of its output; images of a size that it cannot take are refused here, before anything is read."""
    x = jax.ShapeDtypeStruct((1, *size, network.example[0].shape[-1]), np.float32)
    said = jax.eval_shape(network.model.apply, {"params": network.template()}, x, *network.example[1:])
    return said.shape[-1]


def with_variance(how: Sampling, said: int, channels: int, scheduler: Mapping) -> Sampling:
    """`how`, for networks that say a variance of which their scheduler does not know, as DiT's."""
    if said == channels or scheduler.get("variance_type") == "learned_range":
        return how
    if said != 2 * channels or scheduler.get("prediction_type", "epsilon") != "epsilon":
        raise InputError(f"a network that says {said} channels of {channels} is not known")
    _, learned = improved.parameterizations_of(how.schedule, scheduler.get("num_train_timesteps", 1000))
    return how._replace(parameterization=learned)
