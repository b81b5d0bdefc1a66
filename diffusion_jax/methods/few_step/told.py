"""Improved MeanFlow that is told the scale of guidance (Geng et al. 2025): one network for every scale of a range."""

from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.diffusion import guidance
from diffusion_jax.diffusion.few_step.mean_flow import guided_as_told
from diffusion_jax.methods.compose import Method
from diffusion_jax.methods.few_step import guided, mean_flow


def with_scales(config: Config) -> Config:
    """`config` of `mean_flow.with_pairs` with the range of scales, and how often no label is told."""
    for name, value in guided.scales(1).items():
        config.mean_flow[name] = value
    config.mean_flow.withheld = values.share(0.1, "share of examples that are not told their label")
    return config


def method(config: ConfigDict, base: Method, classes: int) -> Method:
    """MeanFlow of a label and a scale: samples are guided in one look a step, by what `--guidance` says.

    Args:
      config: values, as `with_scales` names them.
      base: of `mean_flow.method`, of data with labels and a scale (`guided.told`) and a network that is told both
        (`guided.student_of`); with `predicted` velocities, du/dt is taken along
        the guided flow of the scale told.
      classes: how many labels, 0 to classes - 1; that label tells nothing.
    """
    null, own = guidance.replacing(label=classes), config.mean_flow
    inside = mean_flow.regressing(base, guided_as_told(null), null, own.withheld)
    return inside._replace(loss=guided.scales_told(inside.loss, own), guide=guided.at_scale(own))
