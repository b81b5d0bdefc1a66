"""A tokenizer's folder of a pipeline, read."""

import json
from operator import methodcaller
from pathlib import Path
from typing import Any

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.published import shown
from diffusion_jax.pretrained.tokenizers import byte_pairs, described, settings, special, spiece
from diffusion_jax.pretrained.tokenizers.model import Model
from diffusion_jax.pretrained.tokenizers.settings import Settings
from diffusion_jax.pretrained.tokenizers.special import Beside, Special
from diffusion_jax.pretrained.tokenizers.tokens import LONGEST, Tokenizer, library, refusing, run

DESCRIBED, SPIECE = "tokenizer.json", "spiece.model"
VOCABULARIES = (DESCRIBED, byte_pairs.VOCABULARY, SPIECE)
NAMES = (settings.CONFIG, settings.SPECIAL, settings.ADDED, byte_pairs.MERGES, *VOCABULARIES)
MOST = 16 * files.MEBIBYTE  # bytes of any of them


def opened(folder: Path, length: int | None = None, rows: int | None = None) -> Tokenizer:
    """The tokenizer of a folder, `tokenizer/` or `tokenizer_2/` of a pipeline, as transformers reads it.

    It holds tokenizer.json, or vocab.json and merges.txt (CLIP), or spiece.model (T5); the first of them is read. And
    beside it tokenizer_config.json, special_tokens_map.json and added_tokens.json, or some of them, which say what a
    text is padded with: that is a part of the encoder, which was trained with it.

    Nothing in a folder is executed, patterns of a tokenizer.json among it (`described`).

    Args:
      folder: it.
      length: of every text in tokens, its begin and end included; None is tokenizer_config.json's model_max_length.
      rows: of the table of the encoder that it is for; None where there is none yet.

    Raises:
      InputError: a file is missing, damaged, larger than such files are, or of a tokenizer that is not known; no
        length is given; the encoder has fewer rows than there are pieces; or the library is not installed.
    """
    folder = Path(folder)
    library()  # what is missing here is said before what may be missing there
    said = settings.read(folder)
    model = _model(folder, said)
    for name, allowed in model.settings.items():
        said.values.only(name, *allowed)
    length = said.length if length is None else length
    if length is None:
        raise InputError(f"{said.values.what} says no model_max_length up to {LONGEST}; give a length")
    roles = {**model.roles, **said.tokens.roles}
    with refusing(f"{folder} holds a tokenizer that is damaged"):
        backend = model.backend(roles)
        _add(backend, _beside(model, said, roles), str(folder))
        _surround(backend, [role and roles[role].content for role in model.around])
        found = run(backend, roles["pad_token"].content, length, said.sides, str(folder))
    if rows is not None and found.size > rows:
        raise InputError(
            f"{folder}: the tokenizer has {found.size} pieces and the encoder knows {rows}; "
            "they are of different models"
        )
    return found


def save(folder: Path, path: Path, length: int | None = None) -> None:
    """Write what `opened` reads of a folder into another, byte for byte, so that transformers reads it there too.

    Each file appears whole or not at all, those of the vocabulary last.

    Args:
      folder: that is read.
      path: that is written, made if there is none.
      length: of texts in tokens, which tokenizer_config.json shall say; None leaves what it says.

    Raises:
      InputError: a file cannot be read or written, or is larger than such files are.
    """
    contents = {name: files.read(Path(folder) / name, MOST) for name in NAMES if (Path(folder) / name).exists()}
    if not contents.keys() & VOCABULARIES:
        raise InputError(f"{folder} has none of {', '.join(VOCABULARIES)}; it is no tokenizer's folder")
    if length is not None:
        said = files.json_object(Path(folder) / settings.CONFIG, MOST) if settings.CONFIG in contents else {}
        if said.get("model_max_length") != length:
            changed = json.dumps({**said, "model_max_length": length}, indent=2).encode()
            contents = {settings.CONFIG: changed, **{n: c for n, c in contents.items() if n != settings.CONFIG}}
    for name, content in contents.items():
        files.write(Path(path) / name, methodcaller("write", content))


def _model(folder: Path, said: Settings) -> Model:
    extra = said.values.integer("extra_ids", 0, 1000)
    if (folder / DESCRIBED).exists():
        return described.load(folder / DESCRIBED, said.tokens.roles, extra)
    if (folder / byte_pairs.VOCABULARY).exists():
        return byte_pairs.load(folder)
    if (folder / SPIECE).exists():
        return spiece.load(folder / SPIECE, extra)
    raise InputError(f"{folder} has none of {', '.join(VOCABULARIES)}; it is no tokenizer's folder")


def _beside(model: Model, said: Settings, roles: dict[str, Special]) -> Beside:
    """The tokens of the settings and those of the vocabulary's file."""
    numbered = {**model.beside.numbered, **said.tokens.numbered}
    return Beside(roles, numbered, [*said.tokens.further, *model.beside.further])


def _add(backend: Any, beside: Beside, what: str) -> None:
    """Add tokens to a `tokenizers.Tokenizer`; those of its vocabulary keep their ids, others get the next."""
    tokens = beside.ordered()
    if len(tokens) > special.MOST:
        raise InputError(f"{what} has {len(tokens)} tokens beside its vocabulary; {special.MOST} are possible")
    backend.add_tokens([library().AddedToken(**one._asdict()) for _, one in tokens.values()])
    for content, (number, _) in tokens.items():
        if number is not None and backend.token_to_id(content) != number:
            found = backend.token_to_id(content)
            raise InputError(f"{what}: {shown(content)} has the id {number}, and {found} in the vocabulary")


def _surround(backend: Any, around: list[str | None]) -> None:
    """Let a `tokenizers.Tokenizer` put tokens around a text, which is None in `around`."""
    names = ["$A" if content is None else f"around{place}" for place, content in enumerate(around)]
    tokens = [
        {"id": name, "ids": [backend.token_to_id(content)], "tokens": [content]}
        for name, content in zip(names, around, strict=True)
        if content is not None
    ]
    backend.post_processor = library().processors.TemplateProcessing(single=names, special_tokens=tokens)
