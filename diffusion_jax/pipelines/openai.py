"""Files of improved-diffusion's and guided-diffusion's, to draw from as their code does."""

from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Transform
from diffusion_jax.data import conditions, views
from diffusion_jax.diffusion import guidance, parameterizations, processes, samplers, schedules, variances
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.methods import edits
from diffusion_jax.methods.compose import Chain, MoreChains, drawn_by, nothing_more
from diffusion_jax.pipelines.reading import Reading
from diffusion_jax.pretrained.families import openai_command, openai_flags
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.schedulers.chains import Sampling
from diffusion_jax.training.experiment import Drawable

NARROWEST = 1e-20  # of a learned variance: only the last step asks for it, and the chain ends on that one's mean


def openai(path: str, text: str, more: MoreChains = nothing_more, dtype: DTypeLike | None = np.float32) -> Drawable:
    """A file of OpenAI's, to draw from.

    The sampler "published" is the one that the flags ask for: DDPM's, or with use_ddim DDIM's with eta = 0, on the
    grid of timestep_respacing. "ancestral", "ddim" and the others take that grid too where the flags have one.

    Args:
      path: the file (.pt).
      text: a command line of their scripts, "--image_size 64 --learn_sigma True ..." (`openai_command.read`).
      more: further chains on the same noise, from a `pretrained.schedulers.Sampling`.
      dtype: of the parameters, and of what the network computes (`reading.Reading`).

    Raises:
      InputError: a flag or a value that is not known, or a file that is damaged or of another network.
    """
    command = openai_command.read(text)
    network, flags = openai_flags.unet(command.network), command.chain
    num = flags["diffusion_steps"]
    schedule = schedules.from_betas(_betas(flags["noise_schedule"], num))
    parameterization, variance = _parameterization(command, schedule)
    grid = openai_command.grid(flags["timestep_respacing"], num)
    bounds = (guidance.clip(),) if flags["clip_denoised"] else ()
    side = command.network.get("image_size", openai_flags.FLAGS["image_size"])
    shape = (side, side, network.example[0].shape[-1])
    certain = variances.posterior(schedule)

    def usual(most: int) -> int | None:
        """The flags' own number of steps where they give one, else at most `most`."""
        return None if flags["timestep_respacing"] else min(most, num)

    def ancestral(steps: int | None = None) -> Chain:
        return Chain(samplers.ancestral(processes.gaussian(schedule)), grid(steps), (*bounds, variance))

    def ddim(steps: int | None = usual(50), eta: float = 0.0) -> Chain:
        process = processes.gaussian(schedule, processes.ddim(eta))
        return Chain(samplers.ancestral(process), grid(steps), (*bounds, certain))

    def published(steps: int | None = None) -> Chain:
        return ddim(steps) if flags["use_ddim"] else ancestral(steps)

    def dpmpp_2m(steps: int | None = usual(20)) -> Chain:
        return Chain(samplers.dpmpp_2m(schedule), grid(steps), (*bounds, certain))

    def plms(steps: int | None = usual(50)) -> Chain:
        return Chain(samplers.plms(schedule), grid(steps), (*bounds, certain))

    chains = {"published": published, "ddim": ddim, "dpmpp_2m": dpmpp_2m, "plms": plms, "ancestral": ancestral}
    process = processes.gaussian(schedule)
    chains |= more(
        Sampling(schedule, parameterization, process, bounds, variance, samplers.ancestral(process), grid, bounds)
    )

    model = network.model.clone(dtype=Reading(dtype=dtype).computed)

    def apply(params, *inputs):
        return model.apply({"params": params}, *inputs)

    def load():
        params = network.read(files.weights(path), dtype)
        return params, f"published weights of {path}", lambda sampler: Path("samples") / Path(path).stem / sampler

    sample_condition = conditions.labels(openai_flags.CLASSES) if network.example[2] else conditions.nothing
    return Drawable(
        drawn_by(chains, apply, parameterization, process, shape),
        sample_condition,
        views.pictures(),
        load,
        shape,
        edits.replaced(process),
    )


def _betas(name: str, num: int):
    """Their tables; the linear one keeps the total noise whatever the number of steps."""
    kinds = {
        "linear": lambda: schedules.linear_betas(num, 0.1 / num, 20 / num),
        "cosine": lambda: schedules.cosine_betas(num),
    }
    if name not in kinds:
        raise InputError(f"--noise_schedule {name[:50]} is not known; of use are {', '.join(kinds)}")
    if name == "linear" and num < 20:
        raise InputError(f"--diffusion_steps {num}: OpenAI's linear table takes at least 20")
    return kinds[name]()


def _parameterization(
    command: openai_command.Command, schedule: Schedule
) -> tuple[parameterizations.Parameterization, Transform]:
    """What the network says, and the transform for the variance of ancestral steps."""
    flags, num = command.chain, command.chain["diffusion_steps"]
    index, share = parameterizations.table_index(num), 1000 / num if flags["rescale_timesteps"] else 1.0

    def time(t):
        return index(t) * share

    base = parameterizations.x0(time) if flags["predict_xstart"] else parameterizations.eps(schedule, time)
    if command.network.get("learn_sigma", False):
        return parameterizations.learned_range(base, schedule, NARROWEST), lambda denoise: denoise
    return base, (variances.posterior if flags["sigma_small"] else variances.fixed_large)(schedule)
