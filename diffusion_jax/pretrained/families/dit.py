"""DiT's weights: the names of diffusers' files and of the official ones, and ours (`models.transformers.dit`).

Two things in diffusers' network are not as published. Its files repeat the embeddings of time and label in every
block. And it tells the time in frequencies that are slightly off those of the training; who wants its numbers rather
than the trained ones makes the network with `encode_time=diffusers_time`.
"""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.blocks.layers import sinusoid
from diffusion_jax.models.transformers.dit import positions
from diffusion_jax.pretrained import layouts
from diffusion_jax.pretrained.entries import Entry

DIFFUSERS_BLOCK = {
    "norm1.linear": "modulation",
    "attn1.to_q": "query",
    "attn1.to_k": "key",
    "attn1.to_v": "value",
    "attn1.to_out.0": "out",
    "ff.net.0.proj": "mlp_0",
    "ff.net.2": "mlp_1",
}
OFFICIAL_BLOCK = {"adaLN_modulation.1": "modulation", "attn.proj": "out", "mlp.fc1": "mlp_0", "mlp.fc2": "mlp_1"}
POSITIONS = "pos_embed"


def diffusers(layers: int) -> list[Entry]:
    """The table of `DiTTransformer2DModel` with so many blocks, such as facebook/DiT-XL-2-256 with its 28.

    Ours is `DiT(embed={"label": LabelEmbedding(...)})`.
    """
    blocks = [f"transformer_blocks.{i}" for i in range(layers)]

    def repeated(name, ours, layout):
        first, *others = (f"{block}.norm1.emb.{name}" for block in blocks)
        return Entry(first, (ours,), layout, tuple(others))

    table = [
        *_module("pos_embed.proj", "patches", layouts.conv),
        *_module("proj_out_1", "output_modulation"),
        *_module("proj_out_2", "output"),
        repeated("class_embedder.embedding_table.weight", "embed_label/embedding", layouts.same),
    ]
    for i in (0, 1):
        theirs, ours = f"timestep_embedder.linear_{i + 1}", f"time_embedding/dense_{i}"
        table.append(repeated(f"{theirs}.weight", f"{ours}/kernel", layouts.linear))
        table.append(repeated(f"{theirs}.bias", f"{ours}/bias", layouts.same))
    for i, block in enumerate(blocks):
        for theirs, ours in DIFFUSERS_BLOCK.items():
            table += _module(f"{block}.{theirs}", f"block_{i}/{ours}")
    return table


def official(layers: int) -> list[Entry]:
    """The table of the official network with so many blocks, such as DiT-XL-2-256x256.pt with its 28.

    Ours is as for `diffusers`. A file holds one array more, its positions: `without_positions`.
    """
    table = [
        *_module("x_embedder.proj", "patches", layouts.conv),
        *_module("t_embedder.mlp.0", "time_embedding/dense_0"),
        *_module("t_embedder.mlp.2", "time_embedding/dense_1"),
        Entry("y_embedder.embedding_table.weight", ("embed_label/embedding",)),
        *_module("final_layer.adaLN_modulation.1", "output_modulation"),
        *_module("final_layer.linear", "output"),
    ]
    for i in range(layers):
        for theirs, ours in OFFICIAL_BLOCK.items():
            table += _module(f"blocks.{i}.{theirs}", f"block_{i}/{ours}")
        for theirs, ours, layout in (("weight", "kernel", layouts.linear), ("bias", "bias", layouts.same)):
            parts = tuple(f"block_{i}/{part}/{ours}" for part in ("query", "key", "value"))
            table.append(Entry(f"blocks.{i}.attn.qkv.{theirs}", parts, layouts.merged(3, layout)))
    return table


def without_positions(weights: Mapping) -> dict:
    """The arrays of an official file but for its table of positions, which ours computes.

    Raises:
      InputError: the file's positions are not those that ours computes for a square image.
    """
    table = np.asarray(weights[POSITIONS])
    _, tokens, features = table.shape
    side = math.isqrt(tokens)
    if side**2 != tokens or not np.allclose(table[0], positions(side, side, features), atol=1e-5):
        raise InputError(
            f"{POSITIONS} {table.shape} is not the table of sines of a square image that published DiTs have; "
            "this network has no other positions"
        )
    return {name: array for name, array in weights.items() if name != POSITIONS}


def diffusers_time(time: jax.Array, features: int) -> jax.Array:
    """How diffusers' network tells the time: `layers.sinusoid`, its cosines first."""
    return jnp.roll(sinusoid(time, features), features // 2, axis=-1)


def _module(theirs, ours, layout=layouts.linear):
    return [
        Entry(f"{theirs}.weight", (f"{ours}/kernel",), layout),
        Entry(f"{theirs}.bias", (f"{ours}/bias",)),
    ]
