"""Images destroyed by any process, and restored by a network that predicts x0."""

from ml_collections import ConfigDict

from diffusion_jax.core.protocols import Source
from diffusion_jax.diffusion import losses, parameterizations, samplers, time_sampling, timesteps
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import Chain, Method, composed


def method(config: ConfigDict, source: Source, process: Process, steps: int = 50, name: str = "restore") -> Method:
    """Restoration as an experiment: x0 predicted by mean squared error, and an ancestral chain down an even grid.

    Args:
      config: values, as `pixels.default_config` names them.
      source: `split -> source` of images, "train" or "test".
      process: of images of `config.data.shape`, in [-1, 1].
      steps: of the chain, unless others are asked for.
      name: of the sampler.
    """

    def chain(steps: int = steps) -> Chain:
        return Chain(samplers.ancestral(process), timesteps.linear(steps))

    return Method(
        pixels.data(config, source),
        model=pixels.unet(config),
        process=process,
        parameterization=parameterizations.x0(parameterizations.thousandths),
        loss=losses.simple,
        times=time_sampling.stratified(time_sampling.uniform(first=1e-3)),
        chains={name: chain},
        preview=name,
    )


build = composed(method)
