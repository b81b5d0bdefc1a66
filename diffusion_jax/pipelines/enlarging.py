"""Networks that are shown a small picture with noise, and told how much: stages II of cascades, the x4 upscaler."""

from collections.abc import Sequence

import jax
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Resize, SampleCondition, SampleFn
from diffusion_jax.diffusion import noising, stages
from diffusion_jax.diffusion.noising import LEVEL, Noising
from diffusion_jax.diffusion.stages import Shape, Stage
from diffusion_jax.models.unets.beside import BESIDE
from diffusion_jax.training.experiment import Drawable, Edit, MakeSampler, SampleRequest

LOW = "low_res"


def showing(resize: Resize, noise: Noising, low: Shape, size: Sequence[int]) -> list[Stage]:
    """Two stages: "low_res", of shape `low`, is brought to `size` = (H, W), and gets noise at "noise_level".

    The result is "beside". Noise is drawn by the keys of the stage "renoise".
    """
    beside = (*size, low[-1])
    enlarge = stages.arrays("enlarge", lambda cond: {BESIDE: resize(cond[LOW], size)}, {LOW: low}, {BESIDE: beside})
    return [enlarge, noising.renoise("renoise", noise, BESIDE, beside)]


def by_picture(model: Drawable, show: Sequence[Stage], level: str, low: Shape) -> Drawable:
    """A model that draws what `--enlarge` shows it.

    Args:
      model: its samplers need "beside".
      show: `showing`.
      level: the name under which the network is told the level of the noise.
      low: shape of the small picture.
    """

    def tell(keys, known, cond):
        (told,) = cond
        entries = {LOW: known["image"], LEVEL: told[level]}
        return ({**told, BESIDE: stages.run(show, {}, keys, entries)[BESIDE]},)

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
        edits={"enlarge": Edit(lambda shape: {"image": low}, run=lambda walk: lambda known: walk, tell=tell)},
    )


def checked(condition: SampleCondition, name: str, noise: Noising, most: int | None = None) -> SampleCondition:
    """`condition`, whose levels of noise `name` are indices of the table, up to `most` where that is given."""
    last = noise.num - 1 if most is None else most

    def sample_condition(num, given):
        found = condition(num, given)
        for level in np.unique(found[0][name]):
            if not 0 <= level <= last or level != int(level):
                raise InputError(f"{name} {level:g}: give whole numbers from 0 to {last}")
        return found

    return sample_condition
