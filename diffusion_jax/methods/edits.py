"""How samples are drawn of which something is known, by the names that `sample` has for it."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Run, Tree
from diffusion_jax.diffusion import editing, inpainting, samplers
from diffusion_jax.diffusion.few_step import editing as projecting
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.training.experiment import Edit

MakeEdits: TypeAlias = Callable[[Process], Mapping[str, Edit]]
STRENGTH = 0.5  # of what begins from a picture: the middle of SDEdit's range of times


def replaced(process: Process) -> dict[str, Edit]:
    """Known pixels are put back at every step, with the noise of its time (`inpainting.replacement`)."""

    def run(known):
        return inpainting.replacement(process, known["image"], known["mask"])

    return {"inpaint": Edit(picture_and_mask, _unfilmed(run)), "from": begun(process)}


def on_path(process: Process) -> dict[str, Edit]:
    """The same with the noise of the chain's start at every step (`inpainting.path`), as published latents have it.

    Below strength 1 the rest begins from the picture too.
    """

    def path(known):
        return inpainting.path(process, known["image"], known["mask"])

    def at(strength):
        def run(known):
            return editing.from_image(process, known["image"], strength, path(known))

        return inpaint if strength == 1 else inpaint._replace(run=_unfilmed(run))

    inpaint = Edit(picture_and_mask, _unfilmed(path), at=at)
    return {"inpaint": inpaint, "from": begun(process)}


def clean(process: Process, strength: float = 1.0) -> dict[str, Edit]:
    """Known pixels are there without noise, and the rest begins from the picture (`inpainting.clean`)."""

    def run(known):
        rest = inpainting.clean(known["image"], known["mask"])
        return editing.from_image(process, known["image"], strength, rest)

    inpaint = Edit(picture_and_mask, _unfilmed(run), at=lambda strength: clean(process, strength)["inpaint"])
    return {"inpaint": inpaint, "from": begun(process)}


def _unfilmed(run: Callable[[Mapping[str, jax.Array]], Run]) -> Callable[[Run], Callable[..., Run]]:
    """`Edit.run` of walks of their own, which no other walk goes."""

    def inpaint(walk):
        if walk is not samplers.solve:
            raise InputError("there is no film of inpainting by this model; leave --film out")
        return run

    return inpaint


def projected(process: Process) -> dict[str, Edit]:
    """What is known is put back into every estimate of a consistency model (`few_step.editing`)."""

    def inpaint(walk):
        return lambda known: projecting.inpainted(known["image"], known["mask"], walk)

    def colour(walk):
        return lambda known: projecting.coloured(known["image"].repeat(3, axis=-1), walk)

    def enlarge(walk):
        def of(known):
            return lambda sampler, times, denoise, x, keys: projecting.enlarged(
                known["image"], x.shape[1] // known["image"].shape[1], walk
            )(sampler, times, denoise, x, keys)

        return of

    return {
        "inpaint": Edit(picture_and_mask, inpaint),
        "colour": Edit(_grey, colour),
        "enlarge": Edit(_small, enlarge),
        "from": begun(process),
    }


def begun(process: Process, strength: float = STRENGTH) -> Edit:
    """The chain begins at time `strength`, in (0, 1], from a picture with its noise (`editing.from_image`)."""

    def run(walk):
        return lambda known: editing.from_image(process, known["image"], strength, walk)

    return Edit(_picture, run, at=lambda strength: begun(process, strength))


def between(schedule: Schedule | None) -> dict[str, Edit]:
    """Samples on the way from one picture to another (`editing.between`), of a method of Gaussian noise."""
    if schedule is None:
        return {}

    def run(walk):
        return lambda known: editing.between(schedule, known["image"], known["other"], known["share"], walk)

    def lay(arrays, num):
        if len(arrays["image"]) != 2:
            raise InputError(f"--between takes two pictures, not {len(arrays['image'])}")
        first, second = (np.repeat(x[None], num, axis=0) for x in arrays["image"])
        return {"image": first, "other": second, "share": np.linspace(0, 1, num, dtype=np.float32)}

    return {"between": Edit(_picture, run, lay=lay)}


def within(encode: Callable[[Tree, Tree], Tree], shape: Any, made: Mapping[str, Edit]) -> dict[str, Edit]:
    """Edits of codes as edits of the pictures that a decoder makes of them.

    Pictures are encoded where samples are drawn. Of a code is known what all of its pixels are known of; what else
    is known is put back into the picture. Colours and means of patches are no part of codes: there those edits are
    not.

    Args:
      encode: `(params, x0 [B, H, W, C]) -> z [B, h, w, ...]`, without a draw; h divides H, and w divides W.
      shape: of one picture.
      made: of codes.
    """

    def enter(params, known):
        return {"image": encode(params, known["image"])}

    def enter_both(params, known):
        return {**known, **{name: encode(params, known[name]) for name in ("image", "other")}}

    def enter_part(params, known):
        kept = known["mask"] > 0.5
        # What is not known must not matter: the encoder sees grey there.
        z = encode(params, jnp.where(kept, known["image"], 0.0))
        return {"image": z, "mask": _of_whole_patches(kept, z.shape)}

    def enter_whole(params, known):
        # What is not known is begun from.
        z = encode(params, known["image"])
        return {"image": z, "mask": _of_whole_patches(known["mask"] > 0.5, z.shape)}

    def entering(edit: Edit, **how) -> Edit:
        stronger = edit.at
        begun = {**how, "enter": enter_whole} if how["enter"] is enter_part else how
        at = stronger and (lambda strength: entering(stronger(strength), **(how if strength == 1 else begun)))
        return edit._replace(takes=lambda codes: edit.takes(shape), at=at, **how)

    ways = {
        "inpaint": {"enter": enter_part, "leave": put_back},
        "from": {"enter": enter},
        "between": {"enter": enter_both},
    }
    return {name: entering(made[name], **how) for name, how in ways.items() if name in made}


def _of_whole_patches(kept: jax.Array, codes: tuple[int, ...]) -> jax.Array:
    """Of which codes all pixels are kept: bool [B, H, W, 1] -> [B, h, w, 1] or, as `codes` is, [B, h, w]."""
    batch, height, width = codes[:3]
    patches = kept.reshape(batch, height, kept.shape[1] // height, width, kept.shape[2] // width)
    return patches.all((2, 4)).reshape(codes[:3] + (1,) * (len(codes) - 3))


def _picture(shape: Any) -> dict[str, tuple]:
    return {"image": shape}


def put_back(samples: Tree, known: Mapping[str, jax.Array]) -> Tree:
    """The samples, with the pixels that are known."""
    return jnp.where(known["mask"] > 0.5, known["image"].astype(samples.dtype), samples)


def picture_and_mask(shape: Any) -> dict[str, tuple]:
    """What an edit takes that keeps a part of a picture (`Edit.takes`)."""
    return {"image": shape, "mask": (*shape[:2], 1)}


def _grey(shape: Any) -> dict[str, tuple]:
    if shape[-1] != 3:
        raise InputError(f"this model draws pictures of {shape[-1]} channel, and colours need 3; leave --colour out")
    return {"image": (*shape[:2], 1)}


def _small(shape: Any) -> dict[str, tuple]:
    return {"image": (None, None, shape[-1])}
