"""A second network of latents after a first, as Stable Diffusion XL's refiner: it goes on from what that drew.

SDEdit (Meng et al. 2022) without a decoder between: the latents get noise, and another network takes it away.
"""

from collections.abc import Mapping
from typing import Any

import jax

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import SampleFn
from diffusion_jax.diffusion import samplers, stages
from diffusion_jax.pipelines import staged
from diffusion_jax.pipelines.prompts import NEGATIVE, PROMPT
from diffusion_jax.training.experiment import Drawable, MakeSampler, SampleRequest

REFINER, BASE = "refiner", "base"  # the stage, and where the parameters of both lie
STRENGTH = 0.3
OF_REFINER = "refiner_"  # before the entries that the refiner is told


def refined(base: Drawable, refiner: Drawable, options: Mapping[str, Any]) -> Drawable:
    """`base`, whose samples `refiner` goes on from. Both are told the same texts, each by encoders of its own.

    The sampler, steps and guidance that a person asks for are those of `base`. The refiner draws by the keys of the
    stage "refiner", and is told entries of its own under "refiner_NAME".

    Args:
      base: draws latents.
      refiner: of latents of the same kind.
      options: of the refiner: "strength", the time in (0, 1] from which it begins, and those of `staged.chosen`.

    Raises:
      InputError: the refiner draws latents of another shape or takes no picture, or an option is not known.
    """
    if refiner.shape != base.shape or "from" not in refiner.edits:
        raise InputError(f"the refiner draws {list(refiner.shape)}, and begins from {list(base.shape)} of the first")
    options = {"strength": STRENGTH, **options}
    begun = refiner.edits["from"].at
    assert begun is not None
    strength = options.pop("strength")
    if not 0 < strength <= 1:
        raise InputError(f"--stage refiner.strength={strength:g}: give a number in (0, 1]")
    edit = begun(strength)
    refine, options = staged.chosen(REFINER, refiner.samplers, options)

    def refining(make: MakeSampler) -> MakeSampler:
        def made(request: SampleRequest) -> SampleFn:
            draw = make(request)
            asked = SampleRequest(request.batch, gather=request.gather, **options)

            def sample(params, key: jax.Array, cond):
                keys = rng.of_batch(key, request.batch)
                own, told = _apart(cond)

                def end(z):
                    again = refine(asked._replace(run=edit.run(samplers.solve)({"image": z})))
                    return again(params[REFINER], stages.keys_of(REFINER, keys), told)

                return samplers.ended(draw(params[BASE], keys, own), end, lambda pictures, _: pictures)

            return sample

        return made

    def condition(num, given):
        own, further = _apart(given)
        texts = {name: given[name] for name in (PROMPT, NEGATIVE) if name in given}
        (first,), (second,) = base.sample_condition(num, own), refiner.sample_condition(num, texts | further)
        return (first | {OF_REFINER + name: x for name, x in second.items()},)

    def load():
        params, about, folder = base.load()
        further, by, _ = refiner.load()
        return {BASE: params, REFINER: further}, f"{about}, refined by {by}", folder

    return base._replace(
        samplers={name: refining(make) for name, make in base.samplers.items()},
        sample_condition=condition,
        load=load,
        encoding=None,  # there are texts of two networks
    )


def _apart(cond: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The entries of the first, and those of the refiner, under their own names."""
    own = {name: x for name, x in cond.items() if not name.startswith(OF_REFINER)}
    return own, {name.removeprefix(OF_REFINER): x for name, x in cond.items() if name not in own}
