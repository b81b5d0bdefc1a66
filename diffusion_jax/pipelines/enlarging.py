"""Networks that are shown a small picture with noise, and told how much: stages II of cascades, the x4 upscaler."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import jax
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Resize, SampleCondition, SampleFn
from diffusion_jax.diffusion import noising, stages
from diffusion_jax.diffusion.cascades import LOW
from diffusion_jax.diffusion.noising import LEVEL, Noising
from diffusion_jax.diffusion.stages import Shape, Stage
from diffusion_jax.models.unets.beside import BESIDE
from diffusion_jax.training.experiment import Drawable, Edit, MakeSampler, SampleRequest

ENLARGE = "enlarge"  # the edit, and the small picture beside a large one


def showing(resize: Resize, noise: Noising, low: Shape, size: Sequence[int]) -> list[Stage]:
    """Two stages: "low_res", of shape `low`, is brought to `size` = (H, W), and gets noise at "noise_level".

    The result is "beside". Noise is drawn by the keys of the stage "renoise".
    """
    beside = (*size, low[-1])
    enlarge = stages.arrays("enlarge", lambda cond: {BESIDE: resize(cond[LOW], size)}, {LOW: low}, {BESIDE: beside})
    return [enlarge, noising.renoise("renoise", noise, BESIDE, beside)]


def by_picture(
    model: Drawable, show: Sequence[Stage], low: Shape, beside: Mapping[str, Edit] = MappingProxyType({})
) -> Drawable:
    """A model that draws what `--enlarge` shows it.

    Args:
      model: its samplers need "beside" and "noise_level".
      show: `showing`.
      low: shape of the small picture.
      beside: edits by which something is known of the large picture too; each then takes the small one as "enlarge".
    """

    def telling(name: str):
        def tell(keys, known, cond):
            (told,) = cond
            entries = {LOW: known[name], LEVEL: told[LEVEL]}
            return ({**told, BESIDE: stages.run(show, {}, keys, entries)[BESIDE]},)

        return tell

    def both(edit: Edit) -> Edit:
        at = edit.at
        return edit._replace(
            takes=lambda shape: {**edit.takes(shape), ENLARGE: low},
            tell=telling(ENLARGE),
            at=at and (lambda strength: both(at(strength))),
        )

    def needing(make: MakeSampler) -> MakeSampler:
        def made(request: SampleRequest) -> SampleFn:
            draw = make(request)

            def sample(params, keys: jax.Array, cond):
                if BESIDE not in cond:
                    raise InputError("this model enlarges pictures: give --enlarge PICTURE")
                return draw(params, keys, cond)

            return sample

        return made

    return model._replace(
        samplers={name: needing(make) for name, make in model.samplers.items()},
        edits={
            ENLARGE: Edit(lambda shape: {"image": low}, run=lambda walk: lambda known: walk, tell=telling("image")),
            **{name: both(edit) for name, edit in beside.items()},
        },
    )


def checked(condition: SampleCondition, noise: Noising, *most: int) -> SampleCondition:
    """`condition`, whose "noise_level" is an index of the table, and no more than any of `most`."""
    last = min([noise.num - 1, *most])

    def sample_condition(num, given):
        found = condition(num, given)
        for level in np.unique(found[0][LEVEL]):
            if not 0 <= level <= last or level != int(level):
                raise InputError(f"{LEVEL} {level:g}: give whole numbers from 0 to {last}")
        return found

    return sample_condition
