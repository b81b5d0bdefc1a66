"""Analog bits with self-conditioning (Chen, Zhang & Hinton 2023): tokens as real numbers under Gaussian noise."""

from functools import partial

import jax
from ml_collections import ConfigDict

from diffusion_jax.data.views import View
from diffusion_jax.diffusion import (
    analog_bits,
    guidance,
    losses,
    parameterizations,
    processes,
    samplers,
    schedules,
    time_sampling,
    timesteps,
)
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import Chain, Data, Method, composed


def method(config: ConfigDict, data: Data, bits: int) -> Method:
    """Analog bits as an experiment: the network predicts the bits, shown what it predicted before.

    Args:
      config: values, as `pixels.default_config` names them, of images [H, W, 1].
      data: tokens 0, ..., 2^bits - 1 on pixels [H, W, 1], and how to see them.
      bits: of a token.
    """
    schedule = schedules.cosine()
    base = parameterizations.x0(parameterizations.thousandths)
    process = processes.self_conditioned(processes.gaussian(schedule))
    on_mean = samplers.each_its_own(x=samplers.on_mean, estimate=samplers.on_mean)

    def ddim(steps: int = 100, eta: float = 0.0) -> Chain:
        inner = processes.gaussian(schedule, processes.ddim(eta))
        sampler = samplers.ancestral(processes.self_conditioned(inner), on_mean)
        return Chain(sampler, timesteps.linear(steps), (guidance.clip(),))

    return Method(
        data._replace(
            clean=lambda batch: analog_bits.encode(data.clean(batch)[..., 0], bits),
            shape=(*data.shape[:-1], bits),
            view=_decoded(data.view),
        ),
        model=pixels.unet(config, outputs=bits),
        schedule=schedule,
        process=process,
        parameterization=parameterizations.self_conditioned(base),
        loss=partial(losses.self_conditioned, losses.squared_error(base)),
        times=time_sampling.stratified(time_sampling.uniform(first=1e-3)),
        chains={"ddim": ddim},
        preview="ddim",
    )


build = composed(method)


def _decoded(view: View) -> View:
    """A view of tokens as a view of their states {"x": bits, ...}."""

    def tokens(state):
        return jax.device_get(analog_bits.decode(state["x"]))[..., None]

    return view._replace(
        files=lambda state: view.files(tokens(state)),
        picture=lambda state: view.picture(tokens(state)),
        strip=lambda state: view.strip(tokens(state)),
        from_images=None,
    )
