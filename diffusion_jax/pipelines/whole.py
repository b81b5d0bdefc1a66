"""A model of texts as one pure function, its encoders inside."""

from typing import Any

import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.meshes import on_any_mesh
from diffusion_jax.core.protocols import SampleFn
from diffusion_jax.diffusion import stages
from diffusion_jax.training.experiment import Drawable, SampleRequest


def sample_fn(model: Drawable, request: SampleRequest, sampler: str | None = None) -> SampleFn:
    """`sample_fn(params, rng, cond)`: the encoders of texts, the chains and the decoder in one program.

    It draws what `sample --prompt` draws, but for rounding: that runs the encoders before, and apart.

    Args:
      model: one that is told texts (`published.diffusers`).
      request: how it is drawn, `request.batch` at a time.
      sampler: its name; None for the model's first.

    Returns:
      `sample_fn(params, rng, cond)`, where params is that of `read`, and cond what `model.encoding.ids(texts, None)`
      gives, of as many texts as `request.batch`.

    Raises:
      InputError: the model is told no texts, or the sampler does not meet the request.
    """
    if model.encoding is None:
        raise InputError("this model is told no texts, or its folder has no encoders of them")
    encode = model.encoding.stage()
    blank = {name: np.zeros([1, *(size or 1 for size in shape)], np.float32) for name, shape in encode.gives.items()}
    (beside,) = model.sample_condition(1, blank)  # what else it is told: XL's sizes
    usual = {name: x.repeat(request.batch, axis=0) for name, x in beside.items() if name not in blank}
    draw = model.samplers[sampler or next(iter(model.samplers))](request)

    def sample(params, key, cond):
        keys = rng.of_batch(key, request.batch)
        told = stages.one(encode, request.gather(params["text"]), keys, cond)
        return draw(params["model"], keys, {**usual, **told})

    return on_any_mesh(sample)


def read(model: Drawable) -> dict[str, Any]:
    """The parameters of `sample_fn`, {"text": the encoders', "model": the rest}; errors as of their files."""
    if model.encoding is None:
        raise InputError("this model is told no texts, or its folder has no encoders of them")
    params, _, _ = model.load()
    return {"text": model.encoding.read(), "model": params}
