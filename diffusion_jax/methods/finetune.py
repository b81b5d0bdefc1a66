"""Fine-tuning of a published U-Net: training starts from its weights, on its noise and with what it predicts."""

from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Source
from diffusion_jax.diffusion import losses, processes, samplers, time_sampling
from diffusion_jax.methods import pixels
from diffusion_jax.methods.compose import Chain, Method, composed
from diffusion_jax.pretrained import Pretrained, loading
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.schedulers import scheduler

# Their noise is no table of betas, which the times of training are drawn from.
WITHOUT_TABLE = ("CMStochasticIterativeScheduler", "FlowMatchEulerDiscreteScheduler", "ScoreSdeVeScheduler")


def default_config() -> Config:
    """Values of training, and the folder; those of the network are the folder's own."""
    config = pixels.default_config()
    del config.model
    config.start = Config(folder=values.text("", "published folder, or name on the hub, that training starts from"))
    return config


def method(config: ConfigDict, source: Source) -> Method:
    """A published UNet2DModel, trained on.

    Only its config is read here; the weights are when a run begins. A trained run is written back by
    `diffusion_jax.export`.

    Args:
      config: values, as `default_config` names them; `data.shape` has the network's channels.
      source: `split -> source` of images, "train" or "test".

    Raises:
      InputError: no folder is given; its network is told labels or texts, says a variance or does not fit the images,
        or its scheduler has no table of betas.
    """
    folder = config.start.folder
    if not folder:
        raise InputError("no model to start from; give its folder: --config.start.folder=DIR")
    component = files.component(folder)
    noise = component.scheduler or {}
    if noise.get("_class_name", WITHOUT_TABLE[0]) in WITHOUT_TABLE:
        raise InputError(f"{folder} has no scheduler_config.json with a table of betas; fine-tuning needs one")
    network, how = loading.build(component.config, component.weights), scheduler.sampling(noise)
    channels, out_channels = network.example[0].shape[-1], component.config.get("out_channels")
    if network.example[2] is not None or out_channels != channels:
        raise InputError(f"{folder} is told a condition or says a variance; only plain U-Nets are trained further")
    if config.data.shape[-1] != channels:
        raise InputError(f"{folder} has {channels} channels; give data.shape as many, not {config.data.shape[-1]}")
    num = noise.get("num_train_timesteps", 1000)

    def chain(sampler: samplers.Sampler, bounds: tuple):
        def down(steps: int = 50) -> Chain:
            return Chain(sampler, how.grid(steps), (*bounds, how.variance))

        return down

    def export(params, to):
        Pretrained(network, params, component.config, component.scheduler).save(to)

    return Method(
        pixels.data(config, source),
        model=network.model,
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
        start=lambda params: network.read(component.weights),
        export=export,
    )


build = composed(method)
