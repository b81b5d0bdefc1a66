"""ControlNet (Zhang, Rao & Agrawala 2023) on a trained DDPM: samples follow a hint, and the model stays as it is."""

from pathlib import Path

import jax
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Start
from diffusion_jax.diffusion import losses, parameterizations, processes, time_sampling
from diffusion_jax.methods import ddpm
from diffusion_jax.methods.compose import Data, Method, by_classifier, composed
from diffusion_jax.models.unets.controlnet import Controlled, HintEncoder, from_base
from diffusion_jax.models.unets.skeleton import Skeleton
from diffusion_jax.training.checkpoint import Checkpoints


def with_base(config: Config) -> Config:
    """`config` with the work directory of the trained model, and the widths of the hint's encoder."""
    config.control = Config(
        base=values.text("", "work directory of the trained model that is controlled"),
        channels=values.listed((16,), "features of the hint's encoder, a level each", values.Whole(1, 16_384), 1, 12),
    )
    return ddpm.with_table(config)


def method(config: ConfigDict, data: Data, unet: Skeleton) -> Method:
    """A ControlNet as an experiment; the base of `config.control.base` is frozen.

    Args:
      config: values, as `with_base` names them, those of the model and the table equal to the base's.
      data: that tells {"hint": float [B, s H, s W, C]} (`Data.condition`), s as the encoder shrinks.
      unet: the base's network.
    """
    num = config.diffusion.timesteps
    schedule = ddpm.table(num)
    model = Controlled(unet, HintEncoder(tuple(config.control.channels), unet.dtype))
    return Method(
        data,
        model=model,
        schedule=schedule,
        process=processes.gaussian(schedule),
        parameterization=parameterizations.eps(schedule, parameterizations.table_index(num)),
        loss=losses.simple,
        times=time_sampling.independent(time_sampling.table(num)),
        chains={"ddim": ddpm.ddim(schedule, num), "ancestral": ddpm.ancestral(schedule, num)},
        preview="ddim",
        guide=by_classifier(schedule),
        start=start_from(config.control.base),
        frozen=("unet",),
    )


build = composed(method)


def start_from(base: str) -> Start:
    """`params -> params` of a `Controlled`: the averaged parameters of the run at `base`, and a copy of its way down.

    Raises:
      InputError: no base is given, or the run there has another network.
    """

    def start(params):
        if not base:
            raise InputError("no model to control; give the run of one: --config.control.base=runs/digits")
        folder = Path(base) / "checkpoints"
        if not folder.is_dir():
            raise InputError(f"there is no trained model in {base}; train it first")
        template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params["unet"])
        with Checkpoints(folder) as checkpoints:
            _, trained = checkpoints.restore("ema", template)
        return from_base(params | {"unet": jax.tree.map(jax.numpy.asarray, trained)})

    return start
