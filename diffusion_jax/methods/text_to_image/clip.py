"""CLIP (Radford et al. 2021) at its paper's size, on a folder of captioned pictures: ViT-L/14 at 224x224 pixels.

It is described as transformers does, by a config.json: one table gives the network and writes it. Texts are read by a
published tokenizer. The only augmentation is a square anywhere in a picture, whose short side is shrunk to its side.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import write_json
from diffusion_jax.data import captioned_folder, images, pictures
from diffusion_jax.data.pipeline import random_crop
from diffusion_jax.methods import captioned, clip, pixels
from diffusion_jax.methods.compose import base_config, with_dir, without_chain
from diffusion_jax.methods.text_to_image import readers
from diffusion_jax.models.encoders.images import normalised
from diffusion_jax.pretrained import encoders, tokenizers
from diffusion_jax.pretrained.families import clip_images
from diffusion_jax.pretrained.tokenizers import Tokenizer
from diffusion_jax.pretrained.tokenizers.tokens import LONGEST
from diffusion_jax.training.experiment import Data, Experiment
from diffusion_jax.training.optimizers import adamw_of_betas, with_betas, with_epsilon, with_weight_decay

FLAG = "--config.clip.tokenizer"
SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")


# ---- Values.


def config() -> Config:
    """The paper's values of ViT-L/14 (tables 18 to 20)."""
    config = with_dir(pixels.with_shape(base_config(), (224, 224, 3)))
    config.data.threads = 32
    config.clip = Config(
        tokenizer=values.text("", "folder of a tokenizer, or of a model that has one, or a name on the hub"),
        length=values.count(77, "tokens of a text; more are cut off", LONGEST, least=3),
        patch=values.count(14, "pixels of a patch's side", 256),
        embedding=values.count(768, "features of the common space", 65_536),
        bfloat16=values.flag(True, "whether both transformers compute in bfloat16"),
    )
    config.text = _transformer(768, 12, 12)
    config.vision = _transformer(1024, 24, 16)
    config = with_epsilon(with_betas(with_weight_decay(config, 0.2), (0.9, 0.98)), 1e-6)
    config.train.batch_size = 32_768
    config.train.steps = 390_625  # 32 epochs of 400 million pairs
    config.train.learning_rate = 4e-4
    config.train.warmup_steps = 2000
    config.train.decay_steps = 388_625
    config.train.clip_norm = 0.0
    config.train.ema_decay = 0.0
    config.log.sample_every = 0
    return without_chain(config)


def _transformer(features: int, layers: int, heads: int) -> Config:
    return Config(
        features=values.count(features, "features of this transformer, a multiple of heads", 65_536),
        layers=values.count(layers, "its blocks", 128),
        heads=values.count(heads, "its heads of attention", 1024),
    )


# ---- The network, as transformers describes it.


def described(config: ConfigDict, tokenizer: Tokenizer) -> dict[str, Any]:
    """transformers' config.json of a CLIP with the values of `config`, of a tokenizer's texts.

    Raises:
      InputError: pictures are no squares in three colours, or the patches do not tile them.
    """
    shape = tuple(config.data.shape)
    if shape[0] != shape[1] or shape[2] != 3:
        raise InputError(
            f"data.shape={shape}: a CLIP of transformers sees squares in 3 colours; give (side, side, 3)"
        )
    clip.grid_of(shape, config.clip.patch)
    (ids,), (mask,) = tokenizer.encode([""])  # a begin where there is one, an end, and padding
    both = {"projection_dim": config.clip.embedding, "hidden_act": "quick_gelu"}
    text = {
        "model_type": "clip_text_model",
        "vocab_size": tokenizer.size,
        "max_position_embeddings": tokenizer.length,
        **{name: int(id) for name, id in zip(SPECIAL, (ids[mask][0], ids[mask][-1], ids[-1]), strict=True)},
    }
    vision = {
        "model_type": "clip_vision_model",
        "image_size": shape[0],
        "patch_size": config.clip.patch,
        "num_channels": shape[2],
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "projection_dim": config.clip.embedding,
        "text_config": {**text, **both, **_sizes(config.text)},
        "vision_config": {**vision, **both, **_sizes(config.vision)},
    }


def _sizes(section: ConfigDict) -> dict[str, int]:
    return {
        "hidden_size": section.features,
        "intermediate_size": 4 * section.features,
        "num_hidden_layers": section.layers,
        "num_attention_heads": section.heads,
    }


def _last(mask: np.ndarray) -> np.ndarray:
    """Where the last token of each text is, int [N] of bool [N, L]."""
    return mask.shape[1] - 1 - mask[:, ::-1].argmax(axis=1)


def _check_ends(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """`InputError` unless the encoder reads a text where it ends, as transformers and who holds it do, too."""
    ids, mask = tokenizer.encode(["", "a"])
    if (np.asarray(model.text.pool(ids)) != _last(mask)).any():
        raise InputError(
            f"{folder}: CLIP reads a text where its end token is first, and texts of this tokenizer end elsewhere; "
            "take one that pads on the right, such as that of openai/clip-vit-large-patch14"
        )


# ---- The experiment.


def experiment(config: ConfigDict) -> Experiment:
    """A CLIP as an experiment, with the values of `config`; its export is a folder that `readers.clip` reads.

    Raises:
      InputError: as of `readers.tokenizer`, `described` and `clip.build`; or a width is no multiple of the heads.
    """
    folder, tokenizer = readers.tokenizer(config.clip.tokenizer, FLAG, config.clip.length)
    said = described(config, tokenizer)
    network: Any = encoders.described(said, dtype="bfloat16" if config.clip.bfloat16 else "float32").model
    _check_ends(network, tokenizer, folder)

    def export(params, to):
        # What makes the folder a model, its config.json, comes last.
        tokenizers.save(folder, to, tokenizer.length)
        write_json(to / clip_images.FILE, clip_images.of_side(config.data.shape[0]))
        encoders.write(params, said, to)

    return clip.build(config, _data(config, tokenizer), network, adamw_of_betas)._replace(export=export)


def _data(config: ConfigDict, tokenizer: Tokenizer) -> Data:
    """Pictures as CLIP sees them, of random squares, and texts."""
    read = partial(captioned_folder.captioned, shrink=pictures.cover)
    own = captioned.own(config, tokenizer.encode, tokenizer.length, read)

    def clean(batch):
        return {**batch, "image": normalised(images.to_float(batch["image"]))}

    return own._replace(clean=clean, transforms=(random_crop(tuple(config.data.shape[:2])),))
