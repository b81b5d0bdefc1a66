"""Ways to see what a run makes of examples (`experiment.Look`), from the command line."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.app import known, sampling
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError, NotFiniteError
from diffusion_jax.core.messages import line
from diffusion_jax.core.protocols import Tree
from diffusion_jax.data import pictures
from diffusion_jax.methods.autoencoders.compose import some
from diffusion_jax.training.experiment import Drawable, Experiment, Look

LOOKS = {
    "reconstruct": "examples, and beside each what the model makes of its code",
    "traverse": "of each example, walks along each number of its code; a row each",
    "codes": "the codes of examples, as images",
    "filters": "the weights of the first layer, as images",
}

OF_CHAINS = (
    *("sampler", "chains", "steps", "eta", "label", "guidance", "rescale", "condition", "classifier"),
    *("film", "batch", "fsdp", *known.EDITS, "mask"),
)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of looks."""
    group = parser.add_argument_group(
        "models with codes, in place of samples",
        "PICTUREs are examples; by default they are those of the test split.",
    )
    one = group.add_mutually_exclusive_group()
    for name, about in LOOKS.items():
        one.add_argument(f"--{name}", type=Path, nargs="*", metavar="PICTURE", help=about)


def asked(options: argparse.Namespace) -> str | None:
    """The name of the look that `options` ask for."""
    return next((name for name in LOOKS if getattr(options, name) is not None), None)


def show(
    name: str,
    options: argparse.Namespace,
    usual: Callable[[str], Any],
    model: Drawable,
    experiment: Experiment | None,
) -> None:
    """Write what the look `name` shows: samples.npz, grid.png and asked.json, in a folder of its own.

    Args:
      name: the look.
      options: of the command line: pictures, `num`, `seed`, `out`.
      usual: `option -> its default`; what is of chains is refused.
      model: what is looked at.
      experiment: its data; None of a published model.

    Raises:
      InputError: the model has no such look, an option or a picture does not fit, or the folder is taken.
      NotFiniteError: what is shown is not finite.
    """
    look = _look(name, model)
    given = [f"--{other}" for other in OF_CHAINS if getattr(options, other) != usual(other)]
    if given:
        raise InputError(f"{', '.join(given)}: of how samples are drawn, and --{name} draws none; leave it out")
    paths = getattr(options, name)
    x0 = _own(paths, model) if experiment is None else _examples(paths, experiment, options.num)
    params, about, folder = model.load()
    num = len(jax.tree.leaves(x0)[0])
    asked = {"look": name, "num": num, "seed": options.seed, "parameters": about}
    asked["pictures"] = ", ".join(map(str, paths))
    out = options.out or folder(f"{name}_{num}" + (f"_{paths[0].stem}" if paths else ""))
    sampling.check_free(out, asked)
    keys = rng.per_example(rng.stream(rng.root(options.seed), "sample"), jnp.arange(num))
    shown = jax.device_get(jax.jit(look.draw)(params, keys, x0))
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(shown)):
        raise NotFiniteError("what the model makes of these examples is not finite; take another checkpoint (--step)")
    kept = sampling.keep(out, look.view, shown, (), None, asked)
    line(f"{name} of {num} examples ({about}): {', '.join(map(str, kept))}")


def _look(name: str, model: Drawable) -> Look:
    if name not in model.looks:
        able = " and ".join(f"--{other}" for other in model.looks)
        remedy = f"it takes {able}" if able else "it is of autoencoders; leave it out"
        raise InputError(f"this model has no --{name}; {remedy}")
    return model.looks[name]


def _own(paths: Sequence[Path], model: Drawable) -> Tree:
    """x0 [N, ...] of the pictures at `paths`, for a published model."""
    if not paths or model.view.from_images is None:
        raise InputError("a published model has no examples of its own; name pictures: --reconstruct PICTURE")
    height, width, channels = model.shape
    return model.view.from_images(np.stack([pictures.exactly(path, (height, width), channels) for path in paths]))


def _examples(paths: Sequence[Path], experiment: Experiment, num: int) -> Tree:
    """x0 [N, ...] of the pictures at `paths`, or of the first `num` examples of the test split."""
    data = experiment.data
    if not paths:
        return some(data, num)
    if "image" not in data.example:
        raise InputError(f"this model's examples are no pictures, but {', '.join(data.example)}; name none")
    height, width, channels = data.example["image"].shape
    read = np.stack([pictures.exactly(path, (height, width), channels) for path in paths])
    return np.asarray(data.clean({"image": read}))
