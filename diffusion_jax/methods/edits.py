"""How samples are drawn of which something is known, by the names that `sample` has for it."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import inpainting, samplers
from diffusion_jax.diffusion.few_step import editing
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.training.experiment import Edit

MakeEdits: TypeAlias = Callable[[Process], Mapping[str, Edit]]


def replaced(process: Process) -> dict[str, Edit]:
    """Known pixels are put back at every step, with the noise of its time (`inpainting.replacement`)."""

    def inpaint(walk):
        if walk is not samplers.solve:
            raise InputError("there is no film of inpainting by this model; leave --film out")
        return lambda known: inpainting.replacement(process, known["image"], known["mask"])

    return {"inpaint": Edit(_picture_and_mask, inpaint)}


def projected(process: Process) -> dict[str, Edit]:
    """What is known is put back into every estimate of a consistency model (`few_step.editing`)."""

    def inpaint(walk):
        return lambda known: editing.inpainted(known["image"], known["mask"], walk)

    def colour(walk):
        return lambda known: editing.coloured(known["image"].repeat(3, axis=-1), walk)

    def enlarge(walk):
        def of(known):
            return lambda sampler, times, denoise, x, keys: editing.enlarged(
                known["image"], x.shape[1] // known["image"].shape[1], walk
            )(sampler, times, denoise, x, keys)

        return of

    return {
        "inpaint": Edit(_picture_and_mask, inpaint),
        "colour": Edit(_grey, colour),
        "enlarge": Edit(_small, enlarge),
    }


def _picture_and_mask(shape: Any) -> dict[str, tuple]:
    return {"image": shape, "mask": (*shape[:2], 1)}


def _grey(shape: Any) -> dict[str, tuple]:
    if shape[-1] != 3:
        raise InputError(f"this model draws pictures of {shape[-1]} channel, and colours need 3; leave --colour out")
    return {"image": (*shape[:2], 1)}


def _small(shape: Any) -> dict[str, tuple]:
    return {"image": (None, None, shape[-1])}
