"""Inverse heat dissipation (Rissanen et al. 2023): images are blurred away, and sharpened back."""

import jax
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.core.protocols import Examples, Source
from diffusion_jax.data import images
from diffusion_jax.diffusion import processes, time_sampling
from diffusion_jax.diffusion.processes import heat
from diffusion_jax.methods import restoration
from diffusion_jax.methods.compose import Method, composed


def method(
    config: ConfigDict,
    source: Source,
    widest: float,
    colours: np.ndarray,
    training_noise: float = 0.02,
    sampling_noise: float = 0.025,
    steps: int = 200,
) -> Method:
    """Inverse heat dissipation as an experiment; the network predicts x0.

    Args:
      config: values, as `pixels.default_config` names them.
      source: `split -> source` of images, "train" or "test".
      widest: blur at t = 1, in pixels; about the side of the images, which leaves their mean colour only.
      colours: [N, C], mean colours of training images in [-1, 1] (`mean_colours`): where chains start.
      training_noise: on blurred images in training, in units of pixels in [-1, 1]; the paper's 0.01 is for [0, 1].
      sampling_noise: drawn anew at each step; the paper takes 1.25 times the other.
      steps: of the sampler, unless asked for others; the paper's K is 200.
    """
    # No blur is finer than a pixel: half of one is the first step, as in the paper.
    process = processes.heat_dissipation(
        tuple(config.data.shape),
        heat.log_spaced(0.5, widest),
        lambda key: jax.random.choice(key, colours, axis=0),
        training_noise,
        sampling_noise,
    )

    times = time_sampling.independent(time_sampling.uniform(first=1 / 200))
    return restoration.method(config, source, process, steps, "sharpen")._replace(times=times)


build = composed(method)


def mean_colours(source: Examples, num: int = 1000) -> np.ndarray:
    """Mean colours of the first `num` images of a source, float32 [N, C] in [-1, 1]."""
    return np.stack([images.to_float(source[i]["image"]).mean((0, 1)) for i in range(min(num, len(source)))])
