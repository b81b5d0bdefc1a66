"""The models that commands open: the run in a work directory, or a published one."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

from diffusion_jax.app import cli, loras
from diffusion_jax.core import rng, user_files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.core.protocols import Tree
from diffusion_jax.methods.compose import MakeChain, MoreChains, compose, nothing_more
from diffusion_jax.pipelines import published
from diffusion_jax.pretrained.formats import files
from diffusion_jax.training import held, snapshots, workdir
from diffusion_jax.training.checkpoint import AVERAGE
from diffusion_jax.training.experiment import Drawable, Experiment, Sampling
from diffusion_jax.training.trained import parameters


def experiment(folder: Path, config_file: Path | None = None, more: Path | None = None) -> Experiment:
    """The experiment of the run in `folder`; with the file `more`, its samplers and those of `chains_of` that file.

    Raises:
      InputError: it is no work directory, or its config file or `more` is not what it may be.
    """
    module, config = workdir.open_existing(folder, config_file)
    built = module.build(config)
    if more is None:
        return built
    if built.method is None:
        raise InputError(f"the config of {folder} composes no method, to which --chains adds; add the sampler there")
    method = built.method._replace(chains={**built.method.chains, **chains_of(more)(built.method)})
    return built._replace(sampling=compose(config, method).sampling)


def chains_of(path: Path) -> MoreChains:
    """`model -> chains` of a Python file of the user's, which has a function `chains(model)`.

    `model` is the run's `methods.compose.Method` or a published model's `pretrained.schedulers.Sampling`: both have
    `schedule`, `process` and `parameterization`. The chains are as in `Method.chains`.
    """
    remedy = "it defines chains(model) and returns a dictionary, name -> function; see docs/how_to/sampler.md"
    module = user_files.load(path, "file of chains", "chains", remedy=remedy)

    def chains(model: Any) -> dict[str, MakeChain]:
        found = module.chains(model)
        if not (isinstance(found, dict) and found and all(map(callable, found.values()))):
            raise InputError(f"chains(model) of {path} returns {type(found).__name__}; {remedy}")
        return found

    return chains


# Options that runs do not have.
OF_PUBLISHED = (
    *("size", "variant", "dtype", "lora", "clip_skip", "controlnet", "upscaler", "refiner"),
    *("first_stage", "tile", "stage", "flags"),
)


class Which(NamedTuple):
    """Which parameters of a run.

    Attributes:
      kind: what they are, for a person: "averaged parameters".
      tag: added to the names of folders; "" for the default parameters.
      read: `(folder, experiment, step or None for the newest) -> (step, params)`; raises `InputError` where there
        are none.
    """

    kind: str
    tag: str
    read: Callable[[Path, Experiment, int | None], tuple[int, Tree]]


AVERAGED = Which("averaged parameters", "", lambda folder, of, step: parameters(folder, of, "ema", step))
RAW = Which("raw parameters", "_raw", lambda folder, of, step: parameters(folder, of, "params", step))


def average(name: str) -> Which:
    """A further average of the run, by its name in `Optimization.averages`."""

    def read(folder, of, step):
        if name not in of.optimization.averages:
            known = ", ".join(of.optimization.averages) or "none beside its main one; train.ema_decays asks for some"
            raise InputError(f"the run in {folder} has no average {name}; it has {known}")
        return parameters(folder, of, AVERAGE.format(name), step)

    return Which(f"parameters averaged by {name}", f"_{name}", read)


def post_hoc(sigma_rel: float) -> Which:
    """An average, computed from the run's snapshots (`training.snapshots`)."""

    def read(folder, of, step):
        known = snapshots.found(folder / "averages")
        template = jax.eval_shape(of.task.init, rng.root(0))
        made = snapshots.post_hoc(known, sigma_rel, step, template)
        error = 100 * made.mixture.error
        line(f"sigma_rel {sigma_rel} of step {made.step} from {len(known)} snapshots, {error:.2g} % from its profile")
        return made.step, made.params

    return Which(f"parameters averaged post hoc by sigma_rel {sigma_rel}", f"_post_hoc_{sigma_rel}", read)


def which(options: argparse.Namespace) -> Which:
    """The parameters that `--raw`, `--average` and `--sigma-rel` select.

    Raises:
      InputError: more than one of them is given, or an option of published models is given for a run.
    """
    if not options.pretrained:
        _leave_out("of published models", options, *OF_PUBLISHED)
    asked = {
        "--raw": RAW if options.raw else None,
        "--average": options.average and average(options.average),
        "--sigma-rel": None if options.sigma_rel is None else post_hoc(options.sigma_rel),
    }
    given = {name: parameters for name, parameters in asked.items() if parameters}
    if len(given) > 1:
        raise InputError(f"{' and '.join(given)} are different parameters; give one of them")
    return next(iter(given.values()), AVERAGED)


def read(folder: Path, of: Experiment, which: Which, step: int | None = None) -> tuple[int, Tree]:
    """(step, the parameters as samplers and measures take them) of the run in `folder` (`Sampling.whole`)."""
    found, params = which.read(folder, of, step)
    return found, of.sampling.whole(params, lambda: held.load(folder, of.task.held))


def trained(folder: Path, of: Experiment, which: Which = AVERAGED, step: int | None = None) -> Drawable:
    """The run in `folder`, to draw from.

    Raises:
      InputError: it holds a classifier.
    """
    if not of.sampling.samplers:
        raise InputError(f"{folder} holds a classifier, which draws nothing; give it as --classifier")

    def load():
        found, params = read(folder, of, which, step)
        kept = folder / "samples"
        return params, f"{which.kind} of step {found}", lambda name: kept / f"{name}_{found:08d}{which.tag}"

    drawn, data = of.sampling, of.data
    return Drawable(
        drawn.samplers, data.sample_condition, data.view, load, data.shape, drawn.edits, drawn.looks, drawn.told
    )


def released(options: argparse.Namespace) -> Drawable:
    """The published model of `--pretrained` and its like.

    Raises:
      InputError: an option does not apply to it.
    """
    if which(options) is not AVERAGED:
        raise InputError("a published model has one set of parameters; leave --raw, --average and --sigma-rel out")
    _leave_out("of a run's", options, "step", "config")
    more = chains_of(options.chains) if options.chains else nothing_more
    dtype = DTYPES[options.dtype or "float32"]
    if options.flags is not None:
        _leave_out(
            "of diffusers' folders",
            options,
            *(name for name in OF_PUBLISHED if name not in ("dtype", "flags")),
        )
        return published.openai(options.pretrained, options.flags, more, dtype)
    if Path(options.pretrained).suffix in files.TORCH:
        raise InputError(
            f"{options.pretrained} is a file of weights alone, as OpenAI's are: give --flags with the flags that its "
            "page prints; diffusers' models are folders or names on the hub"
        )
    return published.diffusers(
        options.pretrained,
        options.variant,
        controlnet=options.controlnet,
        size=options.size,
        sampler=options.sampler,
        more=more,
        first_stage=options.first_stage,
        tile=options.tile,
        asked=stages(options.stage),
        upscaler=options.upscaler,
        refiner=options.refiner,
        dtype=dtype,
        loras=loras.parsed(options.lora),
        clip_skip=options.clip_skip or 0,
    )


def _leave_out(whose: str, options, *names: str) -> None:
    given = ["--" + name.replace("_", "-") for name in names if getattr(options, name)]
    if given:
        raise InputError(f"{' and '.join(given)} {'is' if len(given) == 1 else 'are'} {whose}; leave out")


def sampler(model: Drawable | Sampling, name: str | None) -> str:
    """The name of a sampler of the model; its first by default."""
    name = name or next(iter(model.samplers))
    if name not in model.samplers:
        raise InputError(f"no sampler {name} for this model; choose from {', '.join(model.samplers)}")
    return name


def add_drawing(parser: argparse.ArgumentParser) -> None:
    """The options of how samples are drawn."""
    add = parser.add_argument_group("how samples are drawn").add_argument
    add("--sampler", metavar="NAME", help="one of the model's (its first: ancestral for DDPM)")
    add("--chains", type=Path, metavar="FILE", help="a Python file whose chains(model) adds samplers to the model's")
    add("--steps", type=cli.whole(1), metavar="N", help="steps of the chain (for DDPM all, for ddim 50)")
    add("--eta", type=cli.real(0, 1), metavar="ETA", help="ddim's noise, from 0, deterministic, to 1 (0)")
    add("--label", metavar="LIST", help="for models of labels: which, such as 3 or 3,8 (each in turn)")
    add("--guidance", type=cli.real(), metavar="G", help="how strongly it is followed; 1 as learned (the config's)")
    add(
        "--rescale",
        type=cli.real(0, 1),
        metavar="PHI",
        help="how much of a guided prediction's size is set right (0)",
    )
    add("--seed", type=cli.whole(0, 2**63 - 1), default=0, help="of the noise (%(default)s)")
    add("--batch", type=cli.whole(1), default=256, metavar="B", help="drawn at a time, on all devices (%(default)s)")
    add("--fsdp", action="store_true", help="spread the parameters over the devices, where one cannot hold them")
    add("--raw", action="store_true", help="the last parameters instead of their moving average")
    add("--average", metavar="NAME", help="another average of the run, such as 0.999 (train.ema_decays)")
    add("--sigma-rel", type=cli.real(), metavar="S", help="an average of the run's snapshots (train.ema_profiles)")
    add("--step", type=cli.whole(0), metavar="N", help="which checkpoint, or step of the average (the newest)")
    add("--config", type=Path, metavar="FILE", help="the run's config file, if it has moved")


def add_published(parser: argparse.ArgumentParser) -> None:
    """The options of published models."""
    add = parser.add_argument_group("published models").add_argument
    add("--size", metavar="HxW", help="of the pictures, such as 256x384; of latents, where nothing decodes them")
    add("--variant", default="", metavar="NAME", help="of the weights, such as fp16 or ema")
    add("--controlnet", metavar="PATH", help="a published ControlNet for it; give --hint too")
    add("--lora", action="append", metavar="FILE[:S]", help="a LoRA in .safetensors, added S times (1); repeatable")
    add(
        "--clip-skip",
        type=cli.whole(1),
        metavar="K",
        help="layers of CLIP's encoders of texts that prompts leave out",
    )
    add("--upscaler", metavar="PATH", help="a stage II for a stage I of DeepFloyd's IF")
    add(
        "--refiner",
        metavar="PATH",
        help="a network that goes on from the latents, as XL's refiner (--stage refiner.steps=N)",
    )
    add("--first-stage", metavar="PATH", help="what decodes latents, for a folder without: folder, hub name or file")
    add("--tile", type=cli.whole(1), metavar="PIXELS", help="decode on tiles of this side: less memory, more time")
    add("--stage", action="append", metavar="S.O=V", help="of another stage of a pipeline: prior.steps=50, say")
    add("--dtype", choices=DTYPES, help="of the network and its parameters (float32); file: parameters as they lie")
    add("--flags", metavar="TEXT", help="for a file of OpenAI's: the flags that its page gives, in quotes")


# None: each array as its file has it.
DTYPES: dict[str, DTypeLike | None] = {
    "float32": np.float32,
    "bfloat16": jnp.bfloat16,
    "float16": np.float16,
    "file": None,
}
STAGED: dict[str, Callable[[str], Any]] = {
    "sampler": str,
    "steps": cli.whole(1),
    "eta": cli.real(0, 1),
    "guidance": cli.real(),
    "rescale": cli.real(0, 1),
    "strength": cli.real(0, 1),
}


def stages(texts: Sequence[str] | None) -> dict[str, dict[str, Any]]:
    """What `--stage prior.steps=50` and its like ask of the stages of a pipeline: stage -> option -> value.

    Raises:
      InputError: another text, or a value that the option does not have.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in texts or ():
        whose, equals, value = text.partition("=")
        stage, _, option = whose.rpartition(".")
        if not (equals and stage and option in STAGED):
            remedy = f"give STAGE.OPTION=VALUE, such as prior.steps=50; options are {', '.join(STAGED)}"
            raise InputError(f"--stage {text[:100]}: {remedy}")
        try:
            read = STAGED[option](value)
        except argparse.ArgumentTypeError as error:
            raise InputError(f"--stage {whose}: {error}") from error
        ours = {"guidance": "guidance_scale", "rescale": "guidance_rescale"}.get(option, option)
        if ours in found.setdefault(stage, {}):
            raise InputError(f"--stage {text[:100]}: {whose} is given already; give it once")
        found[stage][ours] = read
    return found


def numbers(text: str) -> dict[str, np.ndarray]:
    """What `NAME=0.3` or `NAME=1,2` tells: integers where all are, else floats; nothing for the name of a file.

    Raises:
      InputError: what follows the sign is no list of finite numbers.
    """
    name, equals, listed = text.partition("=")
    if not (equals and name.isidentifier()) or Path(text).is_file():
        return {}
    try:
        found = np.array([float(word) for word in listed.split(",")])
    except ValueError:
        found = np.array([np.nan])
    if not np.isfinite(found).all():
        raise InputError(f"{text[:100]}: give numbers, such as {name}=0.3 or {name}=1,2, or an .npz of arrays")
    whole = (found == np.rint(found)).all() and "." not in listed
    return {name: found.astype(np.int64) if whole and abs(found).max() < 2**53 else found.astype(np.float32)}


def labels(text: str | None) -> dict[str, np.ndarray]:
    """What `--label 3,8` tells."""
    if not text:
        return {}
    try:
        return {"label": np.array([int(label) for label in text.split(",")])}
    except ValueError as error:
        raise InputError(f"--label {text}: give whole numbers with commas between, such as 3,8") from error
