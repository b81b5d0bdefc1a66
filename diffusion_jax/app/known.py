"""What is known of samples before they are drawn: pictures that the command line names, checked."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from diffusion_jax.app import cli
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import SampleFn
from diffusion_jax.data import pictures
from diffusion_jax.diffusion import samplers
from diffusion_jax.methods.edits import STRENGTH
from diffusion_jax.training.experiment import Drawable, Edit, MakeSampler

LOW = "enlarge"  # also beside a large picture, for networks that are shown a small one
EDITS = {
    "inpaint": "pictures of which a part is kept, where --mask says; each in turn",
    "colour": "grey pictures, for a model of colours",
    "enlarge": "small pictures, whose sides divide those of the samples: they are the means of its patches",
    "between": "two pictures, and the samples on the way from one to the other: by DDIM, there and back",
    "from": "pictures from which the samples begin, with as much noise as --strength says; each in turn",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of what is known."""
    group = parser.add_argument_group("where something is known of each sample")
    one = group.add_mutually_exclusive_group()
    for name, about in EDITS.items():
        (group if name == LOW else one).add_argument(f"--{name}", type=Path, nargs="+", metavar="PICTURE", help=about)
    group.add_argument(
        "--mask", type=Path, nargs="+", metavar="PICTURE", help="white where the picture is kept, black where not"
    )
    group.add_argument(
        "--strength",
        type=cli.real(0, 1),
        metavar="S",
        help=f"time in (0, 1] at which --from begins ({STRENGTH}), or --inpaint by published models of texts (1); "
        "at 1 nothing is left of it",
    )


def given(options: argparse.Namespace) -> dict[str, list[Path]]:
    """Option -> the pictures that it names."""
    return {name: paths for name in (*EDITS, "mask") if (paths := getattr(options, name))}


def entering(options: argparse.Namespace, model: Drawable, make: MakeSampler) -> tuple[MakeSampler, tuple]:
    """(`drawing` of a model's sampler `make`, (arrays,)) of what `options` say; (`make`, ()) where they say nothing.

    The arrays, by name, are NumPy's [num, ...]: pictures and masks are taken in turn (`Edit.lay`).

    Raises:
      InputError: the model does not draw so, an option is missing or too much, or a picture cannot be read, or has
        another size or channels than are needed.
    """
    paths = given(options)
    if options.strength is not None and not {"from", "inpaint"} & paths.keys():
        raise InputError("--strength says how much noise a picture begins with; give the picture: --from PICTURE")
    if not paths:
        return make, ()
    name = next((name for name in EDITS if name in paths and name != LOW), LOW if LOW in paths else None)
    if name is None:
        raise InputError("--mask says which part of a picture is kept; give the picture: --inpaint PICTURE")
    if model.view.from_images is None or name not in model.edits:
        able = [f"--{other}" for other in model.edits] if model.view.from_images else []
        remedy = f"it takes {' and '.join(able)}" if able else "leave it out"
        raise InputError(f"this model takes no --{name}; {remedy}")
    edit = model.edits[name]
    if options.strength is not None:
        edit = _at(edit, options.strength)
    files = {"image" if option == name else option: found for option, found in paths.items()}
    shapes = edit.takes(model.shape)
    for missing in sorted(shapes.keys() - files.keys()):
        raise InputError(f"--{name} needs --{missing} PICTURE")
    for needless in sorted(files.keys() - shapes.keys()):
        raise InputError(f"--{name} takes no --{needless} PICTURE")
    read = {of: np.stack([_picture(path, shapes[of], model.shape) for path in files[of]]) for of in shapes}
    arrays = {of: model.view.from_images(images) for of, images in read.items() if of != "mask"}
    arrays |= {of: images.astype(np.float32) / 255 for of, images in read.items() if of == "mask"}
    return drawing(make, edit), (dict(edit.lay(arrays, options.num)),)


def drawing(make: MakeSampler, edit: Edit) -> MakeSampler:
    """`make` with something known: `SampleRequest -> sample_fn(params, keys, arrays, *cond)`."""

    def made(request) -> SampleFn:
        make(request)  # it may refuse
        of_known = edit.run(request.run or samplers.solve)

        def sample(params, keys, arrays: Mapping[str, jax.Array], *cond):
            inside = edit.enter(request.gather(params), arrays)
            told = edit.tell(rng.of_batch(keys, request.batch), inside, cond)
            drawn = make(request._replace(run=of_known(inside)))(params, keys, *told)
            return samplers.ended(drawn, lambda x: edit.leave(x, arrays))

        return sample

    return made


def _at(edit: Edit, strength: float) -> Edit:
    if not strength:
        raise InputError("--strength 0 draws nothing: the samples would be the pictures; give a number up to 1")
    if edit.at is None:
        raise InputError(f"--strength {strength:g}: this model fills pictures from noise alone; leave it out")
    return edit.at(strength)


def _picture(path: Path, shape: Sequence[int | None], whole: Sequence[int]) -> np.ndarray:
    """The pixels of a picture of `shape`, uint8; None stands for a side of `whole` over a factor that both share."""
    high, wide, channels = shape[0], shape[1], shape[-1] or whole[-1]
    if high and wide:
        return pictures.exactly(path, (high, wide), channels)
    colours = pictures.uncut(path)
    height, width, _ = colours.shape
    factor = max(1, whole[0] // height)
    if (factor * height, factor * width) != tuple(whole[:2]):
        wanted = f"{whole[0]} x {whole[1]}"
        raise InputError(f"image {path} is {height} x {width}: no whole factor makes {wanted} of it; resize it")
    return pictures.of_channels(colours, channels, path)
