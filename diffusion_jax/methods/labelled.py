"""Images and their labels as one thing: noise on the image and a mask on the label, undone together.

What UniDiffuser (Bao et al. 2023) does with two images' worth of noise a product of processes does with any two; here
both share the time.
"""

from functools import partial

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.core.distributions import draw
from diffusion_jax.core.protocols import Source
from diffusion_jax.data import images, sources, views
from diffusion_jax.diffusion import (
    guidance,
    losses,
    losses_discrete,
    parameterizations,
    processes,
    samplers,
    schedules,
    time_sampling,
    timesteps,
)
from diffusion_jax.diffusion.processes.categorical import linear_alpha
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import Chain, Data, Method, composed
from diffusion_jax.models.unets.labelled import LabelledUNet


def method(config: ConfigDict, source: Source, classes: int, label_weight: float = 0.1) -> Method:
    """The joint law of images and labels as an experiment.

    Args:
      config: values, as `pixels.default_config` names them; images are not mirrored.
      source: `split -> source` of {"image", "label"}, labels 0, ..., classes - 1.
      classes: how many.
      label_weight: of the label's cross-entropy in nats beside the image's squared error.
    """
    shape, mask = tuple(config.data.shape), classes
    schedule, time = schedules.cosine(), parameterizations.thousandths
    # v, because nothing is left of the image at t = 1, where eps would say nothing of it.
    image = parameterizations.v(schedule, time)
    label = parameterizations.substitution(mask, time)
    process = processes.product(
        image=processes.gaussian(schedule), label=processes.masked(linear_alpha, classes + 1, mask)
    )
    criterion = losses.joint(
        image=losses.squared_error(image),
        label=losses.weighted_criterion(losses_discrete.surprise(label), lambda t: label_weight * jnp.ones_like(t)),
    )

    def ancestral(steps: int = 100) -> Chain:
        end = samplers.each_its_own(image=samplers.on_mean, label=draw)
        grid = timesteps.linear(steps)
        return Chain(samplers.ancestral(process, end), grid, (guidance.part("image", guidance.clip()),))

    return Method(
        Data(
            lambda split: sources.with_labels(source(split), classes),
            example={"image": jax.ShapeDtypeStruct(shape, jnp.uint8), "label": jax.ShapeDtypeStruct((), jnp.int32)},
            clean=lambda batch: {"image": images.to_float(batch["image"]), "label": batch["label"]},
            shape={"image": shape, "label": ()},
            view=views.labelled(classes),
        ),
        model=LabelledUNet(pixels.unet(config), classes),
        schedule=schedule,
        process=process,
        parameterization=parameterizations.joint(time, image=image, label=label),
        loss=partial(losses.of_criterion, criterion),
        times=time_sampling.stratified(time_sampling.uniform(first=1e-3)),
        chains={"ancestral": ancestral},
        preview="ancestral",
    )


build = composed(method)
