"""Configs of encoders: tiny ones of each kind, as transformers writes them, and folders of random weights."""

import numpy as np

from diffusion_jax.core.files import write_json
from diffusion_jax.pretrained import encoders, entries
from diffusion_jax.pretrained.formats import safetensors_file

TEXT = {
    "vocab_size": 20,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
    "eos_token_id": 2,
    "projection_dim": 6,
}
VISION = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
    "projection_dim": 6,
}
T5 = {"vocab_size": 20, "d_model": 16, "d_kv": 4, "d_ff": 24, "num_layers": 1, "num_heads": 2}
CONFIGS = {
    kind: values | {"architectures": [kind]}
    for kind, values in {
        "CLIPTextModel": TEXT,
        "CLIPTextModelWithProjection": TEXT,
        "CLIPVisionModel": VISION,
        "CLIPVisionModelWithProjection": VISION,
        "CLIPModel": {"projection_dim": 6, "text_config": TEXT, "vision_config": VISION},
        "T5EncoderModel": T5,
        "T5ForConditionalGeneration": T5 | {"feed_forward_proj": "gated-gelu"},
    }.items()
}


def arrays(config, dtype=np.float32):
    """Name -> array at random, by transformers' names."""
    network = encoders.described(config)
    rng = np.random.default_rng(0)
    found = entries.kinds(network.template(), network.entries)
    return {name: rng.normal(size=shape).astype(dtype) for name, (_, shape) in found.items()}


def folder_of(path, config, weights=None, stem="model"):
    """A folder with these arrays, or with arrays at random."""
    weights = arrays(config) if weights is None else weights
    kinds = {name: (array.dtype, array.shape) for name, array in weights.items()}
    safetensors_file.write(path / f"{stem}.safetensors", kinds, iter(weights.values()))
    write_json(path / "config.json", config)
    return path
