"""T5's encoder of transformers' config.json, as a module of ours, and the names of its weights."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import DTypeLike

from diffusion_jax.models.encoders.t5 import GatedPerceptron, Perceptron, T5Encoder, check_dtype
from diffusion_jax.pretrained.entries import Entry
from diffusion_jax.pretrained.layouts import linear
from diffusion_jax.pretrained.published import LAYERS, Network, Values, shape
from diffusion_jax.pretrained.wiring import unbiased

VOCABULARY = 2**20  # ids
# Of a whole T5, what is not its encoder.
IGNORED = ("decoder.", "lm_head.")
TOKENS, COPY = "shared.weight", "encoder.embed_tokens.weight"
CONFIG: dict[str, Any] = {
    "vocab_size": 32128,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_layers": 6,
    "num_heads": 8,
    "relative_attention_num_buckets": 32,
    "relative_attention_max_distance": 128,
    "layer_norm_epsilon": 1e-6,
    "feed_forward_proj": "relu",
    "dense_act_fn": None,  # what follows of `feed_forward_proj`, as is the next
    "is_gated_act": None,
    "pruned_heads": None,
}
# The module, its activation, and the names of its layers, by `feed_forward_proj`.
PERCEPTRONS = {
    "relu": (Perceptron, "relu", {"wi": "in", "wo": "out"}),
    "gated-gelu": (GatedPerceptron, "gelu_new", {"wi_0": "gate", "wi_1": "in", "wo": "out"}),
}
ATTENTION = {"q": "query", "k": "key", "v": "value", "o": "out"}


def encoder(config: Mapping[str, Any], weights: Iterable[str] = (), dtype: DTypeLike = np.float32) -> Network:
    """T5EncoderModel, and the encoder of a whole T5.

    Args:
      config: its config.json.
      weights: names of the arrays in its file, which may have the table of tokens by two names or by either.
      dtype: of what is computed.

    Raises:
      InputError: a value that this network does not have, or the dtype float16.
    """
    check_dtype(dtype)
    values = Values(config, CONFIG, "T5EncoderModel")
    kind = values.only("feed_forward_proj", *PERCEPTRONS)
    perceptron, activation, names = PERCEPTRONS[kind]
    values.only("dense_act_fn", None, activation)
    values.only("is_gated_act", None, kind == "gated-gelu")
    values.empty("pruned_heads", "only networks that have all heads are read")
    buckets = values.integer("relative_attention_num_buckets", least=4)
    model = T5Encoder(
        vocab=values.integer("vocab_size", most=VOCABULARY),
        features=values.integer("d_model"),
        width=values.integer("d_kv"),
        hidden=values.integer("d_ff"),
        layers=values.integer("num_layers", most=LAYERS),
        heads=values.integer("num_heads"),
        perceptron=perceptron,
        buckets=buckets,
        farthest=values.integer("relative_attention_max_distance", least=buckets // 4 + 1),
        epsilon=values.number("layer_norm_epsilon", 0, 1),
        dtype=np.dtype(dtype).type,
    )
    return Network(model, (shape(1, 1, dtype=np.int32),), _names(model.layers, names, set(weights)))


def _names(layers: int, perceptron: Mapping[str, str], weights: set[str]) -> list[Entry]:
    theirs, copies = TOKENS, (COPY,) if COPY in weights else ()
    if copies and TOKENS not in weights:
        theirs, copies = COPY, ()
    bias = "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    table = [Entry(theirs, ("tokens",), copies=copies), Entry(bias, ("positions",))]
    for i in range(layers):
        attention, mlp = (f"encoder.block.{i}.layer.{number}" for number in (0, 1))
        table.append(Entry(f"{attention}.layer_norm.weight", (f"block_{i}/norm_0/scale",)))
        for name, ours in ATTENTION.items():
            table += unbiased(f"{attention}.SelfAttention.{name}", f"block_{i}/{ours}", linear)
        table.append(Entry(f"{mlp}.layer_norm.weight", (f"block_{i}/norm_1/scale",)))
        for name, ours in perceptron.items():
            table += unbiased(f"{mlp}.DenseReluDense.{name}", f"block_{i}/mlp/{ours}", linear)
    return [*table, Entry("encoder.final_layer_norm.weight", ("norm/scale",))]
