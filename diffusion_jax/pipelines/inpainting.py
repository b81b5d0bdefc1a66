"""Networks that are shown what is known of a picture: a mask and the latents of the rest, beside the noisy ones.

Stable Diffusion's inpainting is such a network (Rombach et al. 2022, section 4.5), of 4 + 1 + 4 channels.
"""

import jax
import jax.numpy as jnp

from diffusion_jax.core.protocols import SampleFn, Tree
from diffusion_jax.methods import edits
from diffusion_jax.methods.latent import FirstStage
from diffusion_jax.models.unets.beside import BESIDE
from diffusion_jax.training.experiment import Drawable, Edit, MakeSampler, SampleRequest


def shown(stage: FirstStage, factor: int, model: Drawable) -> Drawable:
    """A model of pictures whose network of latents is shown what is known: by `--inpaint`, or else nothing.

    Args:
      stage: the first stage around it.
      factor: pixels of a picture's side to one of its latents.
      model: it, whose samplers need "beside", float [B, h, w, 1 + c].
    """

    def hidden(params: Tree, image: jax.Array, mask: jax.Array) -> jax.Array:
        kept = mask > 0.5
        # What is not known must not matter: the encoder sees grey there. As in diffusers, a pixel of the mask in
        # each patch stands for it.
        z = stage.known(params["held"], jnp.where(kept, image, 0.0))  # type: ignore[misc]  # published ones have it
        paint = ~kept[:, ::factor, ::factor]
        return jnp.concatenate([paint.astype(z.dtype), z], axis=-1)

    def nothing_known(make: MakeSampler) -> MakeSampler:
        def made(request: SampleRequest) -> SampleFn:
            draw = make(request)

            def sample(params, keys, cond):
                if BESIDE not in cond:
                    nothing = jnp.zeros((request.batch, *model.shape))
                    cond = {**cond, BESIDE: hidden(request.gather(params), nothing, nothing[..., :1])}
                return draw(params, keys, cond)

            return sample

        return made

    def enter(params, known):
        return {BESIDE: hidden(params, known["image"], known["mask"])}

    def at(strength: float) -> Edit:
        """The picture, where it is not known too, is begun from."""
        stronger = model.edits["from"].at
        assert stronger is not None
        begun = stronger(strength)

        def both(params, known):
            return {**enter(params, known), **begun.enter(params, {"image": known["image"]})}

        return inpaint if strength == 1 else inpaint._replace(run=begun.run, enter=both)

    inpaint = Edit(
        edits.picture_and_mask,
        run=lambda walk: lambda known: walk,
        enter=enter,
        tell=lambda keys, known, cond: ({**cond[0], BESIDE: known[BESIDE]},),
        leave=edits.put_back,
        at=at,
    )
    return model._replace(
        samplers={name: nothing_known(make) for name, make in model.samplers.items()},
        edits={**model.edits, "inpaint": inpaint},
    )
