"""A pipeline's folder of random weights at full size, for the benchmark of texts."""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from diffusion_jax.core.files import write_json
from diffusion_jax.pretrained import encoders, entries, loading
from diffusion_jax.pretrained.formats.files import DIFFUSERS, TRANSFORMERS

CROSS_DOWN, CROSS_UP, DOWN, UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D", "DownBlock2D", "UpBlock2D"
SD15 = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": [320, 640, 1280, 1280],
    "down_block_types": [CROSS_DOWN, CROSS_DOWN, CROSS_DOWN, DOWN],
    "up_block_types": [UP, CROSS_UP, CROSS_UP, CROSS_UP],
    "layers_per_block": 2,
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}
XL = SD15 | {
    "block_out_channels": [320, 640, 1280],
    "down_block_types": [DOWN, CROSS_DOWN, CROSS_DOWN],
    "up_block_types": [CROSS_UP, CROSS_UP, UP],
    "transformer_layers_per_block": [1, 2, 10],
    "attention_head_dim": [5, 10, 20],
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
TINY = SD15 | {"block_out_channels": [32, 32, 32, 32], "cross_attention_dim": 64, "attention_head_dim": 2}
VAE = {
    "_class_name": "AutoencoderKL",
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "latent_channels": 4,
    "layers_per_block": 2,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}
TEXT = {
    "architectures": ["CLIPTextModel"],
    "model_type": "clip_text_model",
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
    "projection_dim": 768,
    "hidden_act": "quick_gelu",
    "bos_token_id": 0,
    "eos_token_id": 2,
}
BIG = TEXT | {
    "architectures": ["CLIPTextModelWithProjection"],
    "hidden_size": 1280,
    "intermediate_size": 5120,
    "num_hidden_layers": 32,
    "num_attention_heads": 20,
    "projection_dim": 1280,
    "hidden_act": "gelu",
}
SMALL = TEXT | {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
PLAIN, TWO = "StableDiffusionPipeline", "StableDiffusionXLPipeline"
PARTS = {
    "sd15": (PLAIN, {"unet": SD15, "vae": VAE, "text_encoder": TEXT}),
    "xl": (TWO, {"unet": XL, "vae": VAE, "text_encoder": TEXT, "text_encoder_2": BIG}),
    "tiny": (PLAIN, {"unet": TINY, "vae": VAE | {"block_out_channels": [32] * 4}, "text_encoder": SMALL}),
}
SCHEDULER = {
    "_class_name": "DDIMScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
DRAWN = 2**20  # numbers that are drawn; larger arrays repeat them


def make(options, ours):
    """This side always runs."""
    return Folder(options)


class Folder:
    """What the parent may ask of this side."""

    def __init__(self, options):
        self._root, self._model = Path(options.folder), options.model

    def write(self) -> int:
        """Write the folder; the bytes of all its weights."""
        kind, parts = PARTS[self._model]
        classes = {"scheduler": ["diffusers", SCHEDULER["_class_name"]]}
        for name, config in parts.items():
            if "architectures" in config:
                network, stem = encoders.described(config), TRANSFORMERS
                classes[name] = ["transformers", config["architectures"][0]]
                tokenizer = name.replace("text_encoder", "tokenizer")
                classes[tokenizer] = ["transformers", "CLIPTokenizer"]
                _write_tokenizer(self._root / tokenizer)
            else:
                network, stem = loading.build(config), DIFFUSERS
                classes[name] = ["diffusers", config["_class_name"]]
            entries.write(_drawn(network.template()), network.entries, self._root / name, config, stem)
        if kind == PLAIN:
            classes |= {"safety_checker": [None, None], "feature_extractor": [None, None]}
        write_json(self._root / "scheduler" / "scheduler_config.json", SCHEDULER)
        write_json(self._root / "model_index.json", {"_class_name": kind, **classes})
        return sum(path.stat().st_size for path in self._root.rglob("*.safetensors"))


def _drawn(template):
    """No weight is zero, and no map grows with depth."""
    numbers = np.random.default_rng(0).normal(size=DRAWN).astype(np.float32)

    def draw(path, leaf):
        scale = math.sqrt(math.prod(leaf.shape[:-1])) if len(leaf.shape) > 1 else 10
        about = 1.0 if path[-1] == "scale" else 0.0
        return np.resize((about + numbers / scale).astype(jnp.bfloat16), leaf.shape)

    leaves = traverse_util.flatten_dict(template)
    return traverse_util.unflatten_dict({path: draw(path, leaf) for path, leaf in leaves.items()})


def _write_tokenizer(folder: Path):
    letters = [chr(code) for code in [*range(33, 127), *range(161, 173), *range(174, 256), *range(256, 324)]]
    pieces = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    write_json(folder / "vocab.json", {piece: number for number, piece in enumerate(pieces)})
    (folder / "merges.txt").write_text("#version: 0.2\n")
    special = {"bos_token": pieces[-2], "eos_token": pieces[-1], "unk_token": pieces[-1], "pad_token": pieces[-1]}
    write_json(
        folder / "tokenizer_config.json", {"tokenizer_class": "CLIPTokenizer", "model_max_length": 77, **special}
    )
