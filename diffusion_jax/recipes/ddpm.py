"""DDPM (Ho et al. 2020) on images, with its own sampler and DDIM's (Song et al. 2021)."""

from collections.abc import Callable

from ml_collections import ConfigDict

from diffusion_jax import guidance, parameterizations, processes, samplers, schedules, timesteps, variances
from diffusion_jax.experiment import Experiment, SampleRequest
from diffusion_jax.recipes.pixels import Walk, compose, without_eta


def default_config() -> ConfigDict:
    """The values of the paper's CIFAR-10 experiment (section 4 and appendix B); configs change what differs."""
    return ConfigDict(
        {
            "seed": 0,
            "data": {
                "dir": "",  # where TFDS keeps data sets, or a folder of images; "" is TFDS's default
                "shape": (32, 32, 3),
                "flip": True,
                "threads": 8,
            },
            "model": {
                "channels": 128,
                "multipliers": (1, 2, 2, 2),
                "blocks": 2,
                "attention_levels": (1,),
                "dropout": 0.1,
                "groups": 32,
                "bfloat16": False,
            },
            "diffusion": {"timesteps": 1000},
            "train": {
                "batch_size": 128,
                "steps": 800_000,
                "learning_rate": 2e-4,
                "warmup_steps": 5000,
                "clip_norm": 1.0,
                "ema_decay": 0.9999,
            },
            "log": {
                "every": 100,  # steps between lines of metrics
                "checkpoint_every": 5000,
                "keep": 3,  # checkpoints
                "sample_every": 10_000,  # steps between preview grids; 0 for none
                "samples": 64,  # images in a preview grid
                "preview_steps": 50,  # DDIM steps of a preview
            },
        }
    )


def config_256() -> ConfigDict:
    """The values of the paper's 256x256 experiments (LSUN, CelebA-HQ): six levels, attention at 16x16."""
    config = default_config()
    config.data.shape = (256, 256, 3)
    config.data.threads = 16
    config.model.multipliers = (1, 1, 2, 2, 4, 4)
    config.model.attention_levels = (4,)
    config.model.dropout = 0.0
    config.train.batch_size = 64
    config.train.learning_rate = 2e-5
    config.log.samples = 16
    return config


def config_digits() -> ConfigDict:
    """Values for scikit-learn's 8x8 digits: a network that learns them in two minutes on two CPU cores."""
    config = default_config()
    config.data.shape = (8, 8, 1)
    config.data.flip = False  # a mirrored 2 is not a 2
    config.data.threads = 1
    # A third level with attention costs 1.7 times the time a step, and after 1000 steps was no better for it.
    config.model.channels = 32
    config.model.multipliers = (1, 2)
    config.model.blocks = 1
    config.model.attention_levels = ()  # the middle of the network, at 4x4, has it always
    config.model.dropout = 0.0
    config.model.groups = 8
    config.train.batch_size = 32
    config.train.steps = 3000
    config.train.learning_rate = 1e-3
    config.train.warmup_steps = 100
    config.train.ema_decay = 0.997
    config.log.every = 50
    config.log.checkpoint_every = 1000
    config.log.sample_every = 1000
    config.log.samples = 36
    config.log.preview_steps = 50
    return config


def build(
    config: ConfigDict,
    source: Callable,
    betas=None,
    variance: Callable = variances.fixed_large,
) -> Experiment:
    """DDPM as an experiment.

    Args:
      config: values, as `default_config` names them.
      source: `() -> source` of the training images.
      betas: the noise table, [config.diffusion.timesteps]; by default the paper's linear one.
      variance: of the ancestral sampler (`variances`): `fixed_large` for CIFAR-10, `posterior` for 256x256.

    Raises:
      InputError: values that do not fit together, image sizes that the network cannot halve among them.
    """
    num = config.diffusion.timesteps
    schedule = schedules.from_betas(schedules.linear_betas(num) if betas is None else betas)

    def ancestral(request: SampleRequest) -> Walk:
        times = timesteps.uniform(num if request.steps is None else request.steps, num)
        process = processes.gaussian(schedule)
        return Walk(samplers.ancestral(process), times, (guidance.clip(), variance(schedule)))

    def ddim(request: SampleRequest) -> Walk:
        times = timesteps.leading(min(50, num) if request.steps is None else request.steps, num)
        process = processes.gaussian(schedule, processes.ddim(request.eta or 0.0))
        return Walk(samplers.ancestral(process), times, (guidance.clip(),))

    return compose(
        config,
        source,
        process=processes.gaussian(schedule),
        parameterization=parameterizations.eps(schedule, parameterizations.table_index(num)),
        sample_time=timesteps.table_times(num),
        walks={"ancestral": without_eta(ancestral), "ddim": ddim},
        preview="ddim",
    )
