"""Fine-tuning of a published U-Net: training starts from its weights, on its noise and with what it predicts."""

from ml_collections import ConfigDict

from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import Source
from diffusion_jax.diffusion import losses, processes, samplers, time_sampling
from diffusion_jax.methods import folders, pixels
from diffusion_jax.methods.compose import Chain, Method, composed
from diffusion_jax.methods.folders import Opened


def default_config() -> Config:
    """Values of training, and the folder; those of the network are the folder's own."""
    return folders.with_start(pixels.default_config())


def method(config: ConfigDict, source: Source) -> Method:
    """A published UNet2DModel, trained on.

    A trained run is written back by `diffusion_jax.export`.

    Args:
      config: values, as `default_config` names them; `data.shape` has the network's channels.
      source: `split -> source` of images, "train" or "test", with labels where the network is told them.

    Raises:
      InputError: as of `folders.opened`, or its scheduler has no table of betas.
    """
    return of_folder(folders.opened(config.start.folder, pixels.data(config, source), "--config.start.folder"))


def of_folder(model: Opened) -> Method:
    """A published model on a table of betas, trained on its noise, with what it predicts; errors as of `method`."""
    how, num = folders.on_table(model)

    def chain(sampler: samplers.Sampler, bounds: tuple):
        def down(steps: int = 50) -> Chain:
            return Chain(sampler, how.grid(steps), (*bounds, how.variance))

        return down

    return Method(
        model.data,
        model=model.network.model,
        schedule=how.schedule,
        process=processes.gaussian(how.schedule),
        parameterization=how.parameterization,
        loss=losses.simple,
        times=time_sampling.independent(time_sampling.table(num)),
        chains={
            "published": chain(how.sampler, how.own),
            "ddim": chain(samplers.ddim(how.schedule, 0.0, *how.transforms), ()),
        },
        preview="ddim",
        start=lambda params: model.read(),
        export=lambda params, to: model.save(params, to, model.scheduler),
    )


build = composed(method)
