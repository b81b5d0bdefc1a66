"""Images that lose their detail by pooling, rebuilt without fresh noise (Cold Diffusion, Bansal et al. 2022)."""

import jax
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.core.arrays import namespace
from diffusion_jax.core.protocols import Source
from diffusion_jax.diffusion import processes
from diffusion_jax.diffusion.processes import degrade
from diffusion_jax.methods import restoration
from diffusion_jax.methods.compose import Method, composed


def method(config: ConfigDict, source: Source, colours: np.ndarray, sigma: float = 0.2) -> Method:
    """Pooling as an experiment: blocks of 2, 4, 8, ... pixels become one, until the mean colour is left.

    A little noise on top of every state breaks the symmetry of flat images (the paper's section 5.2). On the way back
    it is carried along and never drawn again, which is the paper's algorithm 2.

    Args:
      config: values, as `pixels.default_config` names them.
      source: `split -> source` of images, "train" or "test".
      colours: [N, C], mean colours of training images in [-1, 1] (`blur.mean_colours`): where chains start.
      sigma: of the noise, in units of pixels in [-1, 1].
    """
    shape = tuple(config.data.shape)

    def carried(t):  # all of it from the first step on, none in the data
        return sigma * namespace(t).minimum(namespace(t).asarray(t, float) / 0.05, 1.0)

    def prior(key, shape):
        colour_key, noise_key = jax.random.split(key)
        return jax.random.choice(colour_key, colours, axis=0) + sigma * jax.random.normal(noise_key, shape)

    process = processes.noisy(degrade.pool(shape), carried, prior)

    return restoration.method(config, source, process, name="rebuild")


build = composed(method)
