"""Our side of the benchmark of positions: `samplers.positions` and a Gated PixelCNN, one compiled program."""

import math
import platform
import time

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.diffusion import parameterizations, processes, samplers, timesteps
from diffusion_jax.models import GatedPixelCNN
from experiments.benchmarks.positions import SIZES


def make(options, ours):
    """Our side always runs."""
    return Ours(options)


class Ours:
    """What the parent may ask of this side."""

    def __init__(self, options):
        size = SIZES[options.size]
        self._shape, vocab, num = size["shape"], size["vocab"], math.prod(size["shape"])
        model = GatedPixelCNN(vocab, **size["fields"])
        self._tokens = np.random.default_rng(0).integers(0, vocab, (options.batch, *self._shape)).astype(np.int32)
        shapes = jax.eval_shape(lambda: model.init(rng.root(0), jnp.asarray(self._tokens)))["params"]
        self._params = jax.tree.map(_drawn(np.random.default_rng(1)), shapes)

        def apply(params, x, time):
            return model.apply({"params": params}, x, time)

        self._apply = jax.jit(lambda params, x: apply(params, x, None))
        sample_fn = samplers.make_sample_fn(
            apply,
            parameterizations.logits(parameterizations.thousandths),
            processes.raster(vocab),
            samplers.positions(num),
            timesteps.linear(num),
            options.batch,
            self._shape,
        )
        self._draw, self._number = jax.jit(sample_fn), 0
        device = jax.devices()[0]
        self._about = {
            "name": "diffusion_jax",
            "versions": f"jax {jax.__version__}",
            "platform": device.platform,
            "device": device.device_kind if device.platform != "cpu" else platform.machine(),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(self._params)),
        }

    def about(self) -> dict:
        return self._about

    def said(self) -> tuple:
        """(weights, tokens, the network's logits), NumPy's: for the peer to be the same."""
        return self._params, self._tokens, np.asarray(self._apply(self._params, self._tokens))

    def seconds(self) -> float:
        """Of one whole chain."""
        key, self._number = rng.stream(rng.root(0), "draw", self._number), self._number + 1
        start = time.perf_counter()
        jax.block_until_ready(self._draw(self._params, key))
        return time.perf_counter() - start


def _drawn(numbers):
    """No weight is zero and no gate is shut, so that both networks are seen to be one."""

    def draw(leaf):
        fan_in = math.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 10
        return (numbers.normal(size=leaf.shape) / math.sqrt(fan_in)).astype(np.float32)

    return draw
