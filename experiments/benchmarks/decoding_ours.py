"""Our side of the benchmark of decoding: one compiled program of the first stage's decoder."""

import math
import platform
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.models.autoencoders.tiled import tiled
from diffusion_jax.pretrained import first_stages
from experiments.benchmarks.decoding import SCALE, WIDTHS, watched


def make(options, ours):
    """Our side always runs."""
    return Ours(options)


class Ours:
    """What the parent may ask of this side."""

    def __init__(self, options):
        widths, numbers = WIDTHS[options.network], np.random.default_rng(0)
        config = {
            "_class_name": "AutoencoderKL",
            "down_block_types": ["DownEncoderBlock2D"] * len(widths),
            "up_block_types": ["UpDecoderBlock2D"] * len(widths),
            "block_out_channels": list(widths),
            "layers_per_block": 2,
            "norm_num_groups": min(32, widths[0]),
        }
        network, halves, scaling = first_stages.described(config)
        params = jax.tree.map_with_path(partial(_drawn, numbers), network.template())
        first_stages.FirstStage(network, halves(network.model), scaling, config, dict).save(params, options.folder)
        model = network.model.clone(dtype=jnp.bfloat16 if options.bfloat16 else jnp.float32)
        decode = tiled(model, options.tile) if options.tile else halves(model).decode
        side = options.side // SCALE
        self._z = numbers.normal(size=(options.batch, side, side, 4)).astype(np.float32)
        self._params = jax.device_put(params)
        self._decode = jax.jit(decode).lower(self._params, self._z).compile()
        device = jax.devices()[0]
        self._about = {
            "name": "diffusion_jax",
            "versions": f"jax {jax.__version__}",
            "platform": device.platform,
            "device": device.device_kind if device.platform != "cpu" else platform.machine(),
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        }

    def about(self) -> dict:
        return self._about

    def said(self) -> tuple:
        """(latents, pictures), NumPy's: for the peer to be the same."""
        return self._z, np.asarray(self._decode(self._params, self._z))

    def decode(self) -> tuple[float, float]:
        """(seconds, MiB) of one batch."""
        return watched(lambda: jax.block_until_ready(self._decode(self._params, self._z)))


def _drawn(numbers, path, leaf):
    """No weight is zero, so that both networks are seen to be one, and no map grows with depth."""
    about, spread = float(path[-1].key == "scale"), math.sqrt(math.prod(leaf.shape[:-1])) if leaf.ndim > 1 else 10
    return (about + numbers.normal(size=leaf.shape) / spread).astype(np.float32)
