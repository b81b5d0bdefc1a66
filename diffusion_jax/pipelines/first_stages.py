"""Published models of latents as models of pictures: a first stage decodes what they draw."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.autoencoding import latents
from diffusion_jax.autoencoding.latents import Scaling
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Tree
from diffusion_jax.data import conditions, views
from diffusion_jax.methods import latent
from diffusion_jax.methods.compose import direct
from diffusion_jax.pipelines.reading import Reading
from diffusion_jax.pretrained.first_stages import FirstStage
from diffusion_jax.training.experiment import Drawable, Look

CHAIN = "unet"  # the stage that draws what is decoded: its keys are folded from this name (`diffusion.stages`)


class Decoder(NamedTuple):
    """A first stage around a model of its latents.

    Attributes:
      stage: the first stage.
      scaling: of its latents.
      factor: pixels of a picture's side to one of its latents.
      channels: of the latents.
      about: where it is, for messages.
    """

    stage: FirstStage
    scaling: Scaling
    factor: int
    channels: int
    about: str

    def latents_of(self, height: int, width: int) -> tuple[int, int]:
        """The size of the latents of such pictures; `InputError` where they have none."""
        if height % self.factor or width % self.factor:
            near = "x".join(str(max(1, round(side / self.factor)) * self.factor) for side in (height, width))
            raise InputError(
                f"--size {height}x{width}: a latent is {self.factor} pixels wide; give its multiples, such as {near}"
            )
        return height // self.factor, width // self.factor


def beside(name: str, reading: Reading, path: str | None = None, tile: int | None = None) -> Decoder | None:
    """The first stage of a pipeline; None where it has none.

    Args:
      name: the pipeline (`first_stages.beside`).
      reading: how the weights are read; the variant is of the pipeline's own.
      path: one for a pipeline without (`first_stages.opened`).
      tile: pixels of the side of the tiles that it decodes on; None to decode pictures whole.

    Raises:
      InputError: it has one and `path` is another, as of `first_stages.opened` and `on_tiles`; it makes no pictures,
        or its latents have no known scale; or there is none, and a tile.
    """
    stage = reading.first_stage_beside(name)
    if path is not None:
        if stage is not None:
            raise InputError(f"{name} has a first stage of its own; leave --first-stage {path} out")
        stage = reading._replace(variant="").first_stage(path)
    if stage is None:
        if tile is not None:
            raise InputError(f"--tile {tile} is of what decodes latents, and {name} has none; leave it out")
        return None
    if tile is not None:
        stage = stage.on_tiles(tile)
    about = path or name
    if stage.scaling is None:
        raise InputError(f"--first-stage {about} does not say how its latents are scaled; give a folder of diffusers")
    picture = stage.network.example[0].shape
    if picture[-1] not in (1, 3):
        raise InputError(f"the first stage of {about} makes pictures of {picture[-1]} channels, and 1 or 3 are shown")
    height, _, channels = latents.latent_shape(stage.halves, stage.network.template(), picture[1:])
    return Decoder(stage, stage.scaling, picture[1] // height, channels, about)


def alone(name: str, reading: Reading, size: tuple[int, int] = (256, 256), tile: int | None = None) -> Drawable:
    """A published first stage by itself: it draws what it makes of its own code of pictures.

    Args:
      name: as of `first_stages.opened`.
      reading: how the weights are read.
      size: height and width of the pictures.
      tile: as of `beside`.

    Raises:
      InputError: as of `first_stages.opened` and `on_tiles`; or it takes no pictures of that size.
    """
    stage = reading.first_stage(name)
    if tile is not None:
        stage = stage.on_tiles(tile)
    shape = (*size, stage.network.example[0].shape[-1])
    decode = latents.few_at_a_time(stage.halves.decode)

    def rebuild(params, x):
        return decode(params, stage.halves.encode(params, x).mean)

    jax.eval_shape(rebuild, stage.network.template(), _zeros((1, *shape)))  # refuses a size
    view = views.pictures()

    def missing(num):
        raise InputError(
            f"a first stage draws nothing by itself; give pictures of {size[0]}x{size[1]}: --reconstruct"
        )

    return Drawable(
        {"reconstruct": direct(lambda params, keys, cond: rebuild(params, cond["x"]))},
        conditions.arrays(missing, x=shape),
        view,
        lambda: (
            stage.read(),
            f"published first stage of {name}",
            lambda what: Path("samples") / Path(name).name / what,
        ),
        shape,
        looks={
            "reconstruct": Look(
                lambda params, keys, x: jnp.stack([x, rebuild(params, x)], axis=1), views.rows(view, groups=4)
            )
        },
    )


def decoding(decoder: Decoder, model: Drawable) -> Drawable:
    """A model of latents [h, w, c] as one of the pictures that `decoder` makes of them.

    Raises:
      InputError: the latents have another number of channels.
    """
    height, width, channels = model.shape
    if channels != decoder.channels:
        raise InputError(
            f"the first stage of {decoder.about} decodes {decoder.channels} channels, and the network draws "
            f"{channels}; give the one with which it was trained"
        )
    shape = height * decoder.factor, width * decoder.factor, decoder.stage.network.example[0].shape[-1]
    stage = within(decoder, shape)

    def load():
        trained, about, folder = model.load()
        return latent.whole(trained, decoder.stage.read()), about, folder

    return model._replace(
        samplers={name: latent.decoded(stage, make) for name, make in model.samplers.items()},
        view=views.pictures(),
        load=load,
        shape=shape,
        edits=latent.edited(stage, model.edits),
    )


def within(decoder: Decoder, shape: tuple[int, ...]) -> latent.FirstStage:
    """A first stage around a model of its latents, of pictures of `shape`."""
    halves, scaling = decoder.stage.halves, decoder.scaling
    decode: Callable[[Tree, Tree], Tree] = latents.few_at_a_time(halves.decode)

    def known(held, x0):
        return scaling.scaled(halves.encode(held, x0).mean)

    return latent.FirstStage(
        hold=decoder.stage.read,
        encode=lambda held, keys, x0: (known(held, x0), {}),
        decode=lambda held, z, told: decode(held, scaling.unscaled(z)),
        known=known,
        shape=shape,
    )


def _zeros(shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, np.float32)
