"""What the small files of a tokenizer's folder say: its tokens beside the vocabulary, its length, and its sides."""

from pathlib import Path
from typing import Any, NamedTuple

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.published import Values
from diffusion_jax.pretrained.tokenizers import special
from diffusion_jax.pretrained.tokenizers.special import FURTHER, ROLES, Beside
from diffusion_jax.pretrained.tokenizers.tokens import LONGEST, Sides

CONFIG = "tokenizer_config.json"
SPECIAL = "special_tokens_map.json"
ADDED = "added_tokens.json"

DEFAULTS = {
    "tokenizer_class": None,
    "model_max_length": None,
    "padding_side": "right",
    "truncation_side": "right",
    "extra_ids": 100,
    "unk_id": None,
    "add_prefix_space": None,
    "do_lower_case": None,
    "sp_model_kwargs": None,  # they may ask for pieces that are drawn at random
    "init_inputs": None,
    "added_tokens_decoder": None,
    **dict.fromkeys((*ROLES, *FURTHER)),
}
# What changes no token.
NOTES = (
    *("errors", "clean_up_tokenization_spaces", "chat_template", "legacy", "use_fast", "from_slow", "backend"),
    *("name_or_path", "tokenizer_file", "special_tokens_map_file", "is_local", "local_files_only"),
    # Said by the call of a pipeline itself.
    *("processor_class", "model_input_names", "pad_token_type_id", "pad_to_multiple_of"),
    *("max_length", "stride", "truncation_strategy"),
)


class Settings(NamedTuple):
    """What the small files say.

    Attributes:
      values: of tokenizer_config.json.
      tokens: those beside the vocabulary.
      length: of texts; None where no length is said that is possible here.
      sides: of padding and cutting.
    """

    values: Values
    tokens: Beside
    length: int | None
    sides: Sides


def read(folder: Path) -> Settings:
    """The settings of a folder; each of the files may be missing.

    As in transformers, tokens with ids in tokenizer_config.json stand for the two other files, which older folders
    have; else special_tokens_map.json goes before tokenizer_config.json.

    Raises:
      InputError: a file cannot be read, or says what is not known.
    """
    values = Values(_object(folder / CONFIG), DEFAULTS | dict.fromkeys(NOTES), str(folder / CONFIG))
    for name in ("sp_model_kwargs", "init_inputs"):
        if values[name]:
            values.refuse(name, values[name])
    if values["added_tokens_decoder"] is None:
        tokens = _older(folder, values)
    else:
        numbered = special.numbered(values["added_tokens_decoder"], f"{values.what}: added_tokens_decoder")
        roles, further = _told(values, special_ones=False)
        tokens = Beside(roles, numbered, further)
    sides = Sides(values.only("padding_side", "right", "left"), values.only("truncation_side", "right", "left"))
    return Settings(values, tokens, _length(values), sides)


def _older(folder: Path, values: Values) -> Beside:
    roles, further = _told(values, special_ones=False)
    beside = Values(_object(folder / SPECIAL), dict.fromkeys((*ROLES, *FURTHER)), str(folder / SPECIAL))
    more_roles, more = _told(beside, special_ones=True)
    roles, further = roles | more_roles, further + more
    specials = {one.content for one in (*roles.values(), *further)}
    added, what = _object(folder / ADDED), str(folder / ADDED)
    objects = {
        str(special.identity(number, what)): {"content": content, "special": content in specials}
        for content, number in added.items()
    }
    if len(objects) < len(added):
        raise InputError(f"{what}: an id comes twice; get the tokenizer again")
    return Beside(roles, special.numbered(objects, what), further)


def _told(values: Values, special_ones: bool):
    return special.told({name: values[name] for name in (*ROLES, *FURTHER)}, values.what, special_ones)


def _object(path: Path) -> dict[str, Any]:
    return files.json_object(path) if path.exists() else {}


def _length(values: Values) -> int | None:
    """`model_max_length`; for none transformers writes 10^30."""
    given = values["model_max_length"]
    if given is None or (type(given) in (int, float) and given > LONGEST):
        return None
    return values.integer("model_max_length", most=LONGEST)
