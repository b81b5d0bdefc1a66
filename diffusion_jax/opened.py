"""Models that command lines are pointed at: the run in a work directory, or a published one."""

import argparse
from pathlib import Path

import jax
import numpy as np

from diffusion_jax.errors import InputError
from diffusion_jax.experiment import Drawable, Experiment
from diffusion_jax.recipes import published
from diffusion_jax.training import workdir
from diffusion_jax.training.checkpoint import Checkpoints


def experiment(folder: Path, config_file: Path | None = None) -> Experiment:
    """The experiment of the run in `folder`."""
    module, config = workdir.open_existing(folder, config_file)
    return module.build(config)


def parameters(folder: Path, of: Experiment, item: str = "ema", step: int | None = None):
    """(step, parameters) of the run in `folder`: `item` is "ema" or "params"."""
    template = jax.eval_shape(of.init, jax.random.key(0))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return checkpoints.restore(item, template, step)


def trained(folder: Path, of: Experiment, raw: bool = False, step: int | None = None) -> Drawable:
    """The run in `folder`, to draw from.

    Raises:
      InputError: it holds a classifier.
    """
    if not of.samplers:
        raise InputError(f"{folder} holds a classifier, which draws nothing; give it as --classifier")
    item, kind = ("params", "raw") if raw else ("ema", "averaged")

    def load():
        found, params = parameters(folder, of, item, step)
        return params, f"{kind} parameters of step {found}", lambda name: folder / "samples" / f"{name}_{found:08d}"

    return Drawable(of.samplers, of.ask, of.view, load)


def released(options) -> Drawable:
    """The published model of `--pretrained` and its like."""
    if options.flags is not None:
        return published.openai(options.pretrained, options.flags)
    return published.diffusers(options.pretrained, options.variant, options.controlnet, options.size)


def sampler(model: Drawable, name: str | None) -> str:
    """The name of a sampler of the model; its first by default."""
    name = name or next(iter(model.samplers))
    if name not in model.samplers:
        raise InputError(f"no sampler {name} for this model; choose from {', '.join(model.samplers)}")
    return name


def add_drawing(parser: argparse.ArgumentParser) -> None:
    """The options of how samples are drawn."""
    add = parser.add_argument_group("how samples are drawn").add_argument
    add("--sampler", metavar="NAME", help="one of the model's (its first: ancestral for DDPM)")
    add("--steps", type=int, metavar="N", help="steps of the chain (for DDPM all, for ddim 50)")
    add("--eta", type=float, metavar="ETA", help="ddim's noise, from 0, deterministic, to 1 (0)")
    add("--label", metavar="LIST", help="for models of labels: which, such as 3 or 3,8 (each in turn)")
    add("--guidance", type=float, metavar="G", help="how strongly it is followed; 1 is as learned (the config's)")
    add("--seed", type=int, default=0, help="of the noise (%(default)s)")
    add("--batch", type=int, default=256, metavar="B", help="drawn at a time, over all devices (%(default)s)")
    add("--raw", action="store_true", help="the last parameters instead of their moving average")
    add("--step", type=int, metavar="N", help="which checkpoint (the newest)")
    add("--config", type=Path, metavar="FILE", help="the run's config file, if it has moved")


def add_published(parser: argparse.ArgumentParser) -> None:
    """The options of published models."""
    add = parser.add_argument_group("published models").add_argument
    add("--size", metavar="HxW", help="of the images or latents, such as 64x96 (the published one)")
    add("--variant", default="", metavar="NAME", help="of the weights, such as fp16 or ema")
    add("--controlnet", metavar="PATH", help="a published ControlNet for it; hints come with --condition")
    add("--flags", metavar="TEXT", help="for a file of OpenAI's: the flags that its page gives, in quotes")


def labels(text: str | None) -> dict[str, np.ndarray]:
    """What `--label 3,8` tells."""
    if not text:
        return {}
    try:
        return {"label": np.array([int(label) for label in text.split(",")])}
    except ValueError as error:
        raise InputError(f"--label {text}: give whole numbers with commas between, such as 3,8") from error
