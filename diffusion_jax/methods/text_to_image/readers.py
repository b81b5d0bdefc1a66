"""Published encoders of texts and pictures that a run holds: T5 and CLIP. A folder is opened and checked; only its
configs are read here. The weights are when a run begins, and stay in the file's dtype.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from diffusion_jax.config import values
from diffusion_jax.config.values import Config
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Hold, ReadWeights, Tree
from diffusion_jax.diffusion.stages import Stage
from diffusion_jax.diffusion.unclip import TEXT
from diffusion_jax.models.encoders import images
from diffusion_jax.models.encoders.clip import unit
from diffusion_jax.pretrained import encoders, tokenizers
from diffusion_jax.pretrained.encoders import Encoder
from diffusion_jax.pretrained.formats import files
from diffusion_jax.pretrained.tokenizers import Tokenizer
from diffusion_jax.pretrained.tokenizers.folders import NAMES
from diffusion_jax.pretrained.tokenizers.tokens import LONGEST

TOKENS, MASK = "tokens", "token_mask"
OF_TEXTS, OF_PICTURES = "text", "vision"  # parts of a CLIP's parameters
TOKENIZER = "tokenizer"  # a folder
OF_TOKENIZERS = [str(Path(folder) / file) for folder in (TOKENIZER, "") for file in NAMES]
Says: TypeAlias = Callable[[Tree, jax.Array, jax.Array], dict[str, jax.Array]]


class Reader(NamedTuple):
    """What reads texts.

    Attributes:
      tokenizer: texts -> ids and mask, both [N, L].
      says: `(params, ids [B, L], mask [B, L]) -> entries`, what networks are told of texts.
      told: name -> shape and dtype of such an entry of one text.
      read: `() -> params`, of the encoder.
    """

    tokenizer: Tokenizer
    says: Says
    told: Mapping[str, jax.ShapeDtypeStruct]
    read: Hold

    def stage(self, name: str) -> Stage:
        """It as the first stage of a pipeline, from "ids" and "mask"."""
        length = (self.tokenizer.length,)
        gives = {entry: tuple(x.shape) for entry, x in self.told.items()}
        return Stage(
            name,
            lambda params, keys, cond: self.says(params, cond["ids"], cond["mask"]),
            {"ids": length, "mask": length},
            gives,
        )


class Clip(NamedTuple):
    """What reads texts and sees pictures.

    Attributes:
      reader: of texts; its parameters are of both, {"text", "vision"}.
      seen: `(params, pictures [B, H, W, 3] in [-1, 1]) -> embeddings [B, D]`.
      size: D.
    """

    reader: Reader
    seen: Callable[[Tree, jax.Array], jax.Array]
    size: int


def values_of(what: str, length: int) -> Config:
    """What says which encoder reads texts."""
    return Config(
        folder=values.text("", f"published {what}, a folder with its tokenizer, or a name on the hub"),
        length=values.count(length, "tokens of a text; more are cut off", LONGEST, least=3),
        bfloat16=values.flag(True, "whether it computes in bfloat16"),
    )


def t5(section: ConfigDict, flag: str) -> Reader:
    """A T5, as Imagen has it: "tokens" [L, D], the last state, zero at padding, and "token_mask" [L].

    Args:
      section: as `values_of` makes it.
      flag: of it, for messages: "--config.text".

    Raises:
      InputError: no folder is given, or there is no T5 and its tokenizer in it.
    """
    root, encoder = _opened(section, flag, "T5", "text_encoder")
    model = encoder.network.model

    def says(params, ids, mask):
        return {TOKENS: model.apply({"params": params}, ids, mask) * mask[..., None], MASK: mask}

    pieces = tokenizers.opened(_within(root), section.length, model.vocab)
    return _reader(pieces, says, encoder.network.template(), encoder.read)


def clip(section: ConfigDict, flag: str) -> Clip:
    """A whole CLIP, of texts and of pictures.

    A text is the entries "tokens" [L, F], the last state, normalised; "text_embedding" [D]; and "token_mask" [L].
    Embeddings are unit vectors times sqrt(D).

    Args:
      section: as `values_of` makes it.
      flag: of it, for messages.

    Raises:
      InputError: no folder is given, or there is no CLIP and its tokenizer in it, or it reads shorter texts.
    """
    root, encoder = _opened(section, flag, "CLIPModel", "")
    model = encoder.network.model
    if section.length > model.text.positions:
        raise InputError(f"{flag}.length={section.length}: this CLIP reads {model.text.positions} tokens at most")
    side = model.vision.grid[0] * model.vision.patch

    def says(params, ids, mask):
        text = model.text.apply({"params": params[OF_TEXTS]}, ids)
        return {TOKENS: text.final, TEXT: of_unit_entries(text.pooled), MASK: mask}

    def seen(params, pictures):
        found = model.vision.apply({"params": params[OF_PICTURES]}, images.prepared(pictures, side))
        return of_unit_entries(found.embedding)

    def read(dtype=None):
        params = encoder.read(dtype)
        return {name: params[name] for name in (OF_TEXTS, OF_PICTURES)}

    pieces = tokenizers.opened(_within(root), section.length, model.text.vocab)
    reader = _reader(pieces, says, encoder.network.template(), read)
    return Clip(reader, seen, reader.told[TEXT].shape[0])


def tokenizer(name: str, flag: str, length: int) -> tuple[Path, Tokenizer]:
    """A tokenizer without its encoder, and the folder where its files are.

    Args:
      name: a folder, of the tokenizer or of a model that has one; or a name on the hub.
      flag: how it is given, for messages: "--config.clip.tokenizer".
      length: of every text in tokens.

    Raises:
      InputError: no folder is given, or there is no tokenizer in it.
    """
    if not name:
        raise InputError(f"no tokenizer is given; give its folder: {flag}=DIR")
    root = Path(name)
    folder = _within(root if root.exists() else files.downloaded(name, "", None, (), OF_TOKENIZERS))
    return folder, tokenizers.opened(folder, length)


def of_unit_entries(embedding: jax.Array) -> jax.Array:
    """Embeddings [B, D] as unit vectors times sqrt(D), float32."""
    return unit(embedding.astype(jnp.float32)) * embedding.shape[-1] ** 0.5


def _opened(section: ConfigDict, flag: str, kind: str, part: str) -> tuple[Path, Encoder]:
    """(where its files are, the encoder); `kind` begins the name of its class."""
    name = section.folder
    if not name:
        raise InputError(f"no encoder of texts; give its folder: {flag}.folder=DIR")
    root = Path(name)
    if not root.exists():
        root = files.downloaded(name, "", None, (part, ""), OF_TOKENIZERS)
    encoder = encoders.opened(root, part, dtype=jnp.bfloat16 if section.bfloat16 else jnp.float32)
    (found,) = encoder.config["architectures"]
    if not found.startswith(kind):
        raise InputError(f"{flag}.folder={name} has a {found}; a {kind} is expected")
    return root, encoder


def _within(root: Path) -> Path:
    """Where the tokenizer of a published model is: in a folder of its own, or beside the model."""
    own = root / TOKENIZER
    return own if own.is_dir() else root


def _reader(tokenizer: Tokenizer, says: Says, params: Tree, read: ReadWeights) -> Reader:
    ids = jax.ShapeDtypeStruct((1, tokenizer.length), jnp.int32)
    mask = jax.ShapeDtypeStruct(ids.shape, jnp.bool_)
    found = jax.eval_shape(says, params, ids, mask)
    told = {name: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for name, x in found.items()}
    # In the file's own dtype: a T5-XXL takes twice the memory in another.
    return Reader(tokenizer, says, told, partial(read, None))
