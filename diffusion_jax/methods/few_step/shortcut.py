"""Shortcut models (Frans et al. 2025): a flow whose network is told how long a step it is asked for."""

from functools import partial

from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.protocols import Network
from diffusion_jax.diffusion import parameterizations, processes, samplers, schedules, timesteps
from diffusion_jax.diffusion.few_step import shortcut
from diffusion_jax.methods.compose import Chain, Method, composed
from diffusion_jax.training.experiment import Data


def with_shortcuts(config: Config) -> Config:
    """`config` with what the method has of its own, the paper's values; previews of one step."""
    config.log.preview_steps = 1
    config.shortcut = Config(
        smallest=values.count(128, "smallest steps of a chain, a power of two", 4096, least=2),
        bootstrapped=values.share(0.125, "share of examples that learn a step from two of half its length"),
    )
    return config


def method(config: ConfigDict, data: Data, model: Network) -> Method:
    """A shortcut model as an experiment; its samples take 1, 2, 4, ... steps, a power of two.

    Args:
      config: values, as `with_shortcuts` names them.
      data: any.
      model: a network of two times (`models.two_times.listening`).
    """
    schedule, num = schedules.flow(), config.shortcut.smallest
    level = shortcut.level(num)

    def interval(length):
        # The sinusoid's slowest waves are long: neighbouring levels are told as times a tenth apart are.
        return 100 * level(length)

    def jump(steps: int = 1) -> Chain:
        shortcut.check_steps(steps, num)
        return Chain(samplers.jump(schedule), timesteps.linear(steps))

    velocity = parameterizations.velocity(schedule, parameterizations.thousandths)
    return Method(
        data,
        model=model,
        schedule=schedule,
        process=processes.gaussian(schedule),
        parameterization=parameterizations.flow_map(velocity, interval),
        loss=partial(shortcut.shortcut, num=num),
        times=shortcut.spans(num, config.shortcut.bootstrapped),
        chains={"jump": jump},
        preview="jump",
    )


build = composed(method)
