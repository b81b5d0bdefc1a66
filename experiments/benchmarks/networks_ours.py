"""Our side of the networks' benchmark: one network, compiled and timed."""

import time

import flax
import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.app import cpu
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.models.transformers.dit import DiT
from diffusion_jax.models.unets.adm import ADMUNet, heads_of_width
from diffusion_jax.models.unets.controlnet import Controlled, HintEncoder
from diffusion_jax.models.unets.text_unet import TextUNet
from diffusion_jax.models.unets.unet import UNet
from experiments.benchmarks.networks import CLASSES, HINT, NETWORKS, TOKENS, TOLD

# Makers of each network, from what `NETWORKS` says of it and its fields.
MAKERS = {
    "ddpm": lambda size, fields: UNet(**fields),
    "adm": lambda size, fields: ADMUNet(
        **fields, heads=heads_of_width(size["head"]), embed={"label": LabelEmbedding(CLASSES)}
    ),
    "text": lambda size, fields: TextUNet(**fields),
    "dit": lambda size, fields: DiT(**fields, embed={"label": LabelEmbedding(CLASSES + 1)}),
    "controlnet": lambda size, fields: Controlled(TextUNet(**fields), HintEncoder(dtype=fields["dtype"])),
}


class Ours:
    """What the parent may ask of this side."""

    def __init__(self, options):
        name, noise = options.network, np.random.default_rng(0)
        size = NETWORKS[name][options.size]
        batch, (height, width, channels) = options.batch or size["batch"], size["image"]
        model = MAKERS[name](size, size["fields"] | {"dtype": jnp.dtype(options.dtype)})
        makers = {
            "label": lambda: noise.integers(0, CLASSES, batch),
            "tokens": lambda: noise.standard_normal((batch, *TOKENS), np.float32),
            "hint": lambda: noise.standard_normal((batch, HINT * height, HINT * width, 3), np.float32),
        }
        arguments = (
            noise.standard_normal((batch, height, width, channels), np.float32),
            np.linspace(0, 999, batch, dtype=np.float32),
            {condition: makers[condition]() for condition in TOLD[name]},
        )
        shapes = jax.eval_shape(model.init, jax.random.key(0), *arguments)["params"]
        weights = jax.tree.map(lambda leaf: 0.02 * noise.standard_normal(leaf.shape, np.float32), shapes)
        self._arguments = jax.device_put((weights, *arguments))
        self._apply = jax.jit(lambda params, *rest: model.apply({"params": params}, *rest))
        self._forwards = options.forwards
        device = jax.local_devices()[0]
        self._about = {
            "name": "diffusion_jax",
            "versions": f"jax {jax.__version__}, flax {flax.__version__}",
            "device": device.device_kind,
            "platform": device.platform,
            "batch": batch,
            "parameters": sum(leaf.size for leaf in jax.tree.leaves(shapes)),
        }

    def about(self) -> dict:
        return self._about

    def prepare(self) -> float:
        """Seconds of the first call, which compiles."""
        start = time.perf_counter()
        jax.block_until_ready(self._apply(*self._arguments))
        return time.perf_counter() - start

    def seconds(self) -> float:
        """Of one forward pass."""
        start = time.perf_counter()
        for _ in range(self._forwards):
            out = self._apply(*self._arguments)
        jax.block_until_ready(out)
        return (time.perf_counter() - start) / self._forwards


def make(options, _):
    """`Ours` in a process of its own, where no program is taken from a cache of earlier runs."""
    cpu.prefer_eigen()
    jax.config.update("jax_enable_compilation_cache", False)
    return Ours(options)
