"""A tokenizer.json, the file of the library of tokenizers: a vocabulary, and a description of what becomes of texts.

The description is never run: a pattern of it may take a time of 2^n on a text of n characters, and a replacement may
make a text as long as it likes. It is compared with CLIP's and T5's, and these are run; any other is refused.
"""

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.published import Values, shown
from diffusion_jax.pretrained.tokenizers import byte_pairs, pieces, special
from diffusion_jax.pretrained.tokenizers.byte_pairs import MARKED, WORDS
from diffusion_jax.pretrained.tokenizers.model import Model
from diffusion_jax.pretrained.tokenizers.special import NOTHING, Beside, Special

MOST = 16 * files.MEBIBYTE  # bytes of a file; as Python objects they may take 30 times as much
PARTS = (
    *("version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor"),
    *("decoder", "model"),  # ids are not decoded here
)

# What a step is where a file does not say all of it, as older ones do not.
STEPS: dict[Any, dict[str, Any]] = {
    "Split": {"invert": False},
    "ByteLevel": {"add_prefix_space": True, "trim_offsets": True, "use_regex": True},
    "Metaspace": {
        **{"replacement": pieces.SPACE, "str_rep": pieces.SPACE, "add_prefix_space": True},
        **{"prepend_scheme": "always", "split": True},
    },
}


def _step(kind: str, **said: Any) -> dict[str, Any]:
    return {"type": kind, **STEPS.get(kind, {}), **said}


def _replace(pattern: str, content: str) -> dict[str, Any]:
    return _step("Replace", pattern={"Regex": pattern}, content=content)


CLIP_TEXTS = [[_step("NFC"), _replace(r"\s+", " "), _step("Lowercase")]]
CLIP_WORDS = [
    [
        _step("Split", pattern={"Regex": words}, behavior="Removed", invert=True),
        _step("ByteLevel", add_prefix_space=False),
    ]
    for words in (MARKED, WORDS)
]
# The rules of characters stand in the first step. What older files do after it, the split at spaces does as well.
T5_TEXTS = [
    [],
    [_step("Precompiled")],
    [_step("Precompiled"), _step("Strip", strip_left=False, strip_right=True), _replace(" {2,}", pieces.SPACE)],
]
T5_WORDS = [[_step("Metaspace")], [_step("WhitespaceSplit"), _step("Metaspace")]]


def load(path: Path, roles: dict[str, Special], extra: int) -> Model:
    """The model of a tokenizer.json.

    Args:
      path: of the file.
      roles: role ("eos_token") -> token, as far as the files beside it say them.
      extra: how many `sentinels` a T5 has.

    Raises:
      InputError: the file cannot be read, or describes neither CLIP's way with texts nor T5's.
    """
    what = str(path)
    whole = Values(files.json_object(path, MOST), dict.fromkeys(PARTS), what)
    whole.only("version", "1.0")
    for name in ("truncation", "padding"):  # a pipeline's call says both but for their sides
        if whole[name] is not None and (type(whole[name]) is not dict or whole[name].get("direction") != "Right"):
            whole.refuse(name, whole[name], "only the right side is read from this file")
    beside = NOTHING._replace(numbered=_numbered(whole["added_tokens"], f"{what}: added_tokens"))
    given = whole["model"] if type(whole["model"]) is dict else {}
    if given.get("type") == "BPE":
        found, ids = _clip(whole, roles, beside)
    elif given.get("type") == "Unigram":
        found, ids = _t5(whole, extra, beside)
    else:
        raise InputError(
            f"{what}: a model of type {shown(given.get('type'))} is not known; of use are BPE and Unigram"
        )
    ids = ids | {one.content: number for number, one in beside.numbered.items()}
    contents = [role and (found.roles | roles)[role].content for role in found.around]
    wanted = [content and (content, ids.get(content)) for content in contents]
    if _around(whole["post_processor"]) != wanted:
        whole.refuse("post_processor", whole["post_processor"], f"a text stands as in {contents} then")
    return found


def _clip(whole: Values, roles: dict[str, Special], beside: Beside) -> tuple[Model, dict[str, int]]:
    what = f"{whole.what}: model"
    defaults = {
        "type": "BPE",
        "dropout": None,
        "unk_token": byte_pairs.EOS,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        "vocab": None,
        "merges": None,
    }
    values = Values(whole["model"], defaults, what)
    unknown = (byte_pairs.ROLES | roles)["unk_token"].content
    only = {"dropout": (None, 0), "continuing_subword_prefix": ("", None), "end_of_word_suffix": (byte_pairs.END,)}
    for name, allowed in ({"unk_token": (unknown,)} | only).items():
        values.only(name, *allowed)
    for name in ("fuse_unk", "byte_fallback", "ignore_merges"):
        values.only(name, False)
    _only_steps(whole, "normalizer", "normalizers", CLIP_TEXTS)
    _only_steps(whole, "pre_tokenizer", "pretokenizers", CLIP_WORDS)
    known = byte_pairs.vocabulary(values["vocab"], f"{what}: vocab")
    if type(values["merges"]) is not list:
        values.refuse("merges", values["merges"], "a list of pairs is expected")
    return byte_pairs.model(known, byte_pairs.merges(values["merges"], known, f"{what}: merges"), what, beside), known


def _t5(whole: Values, extra: int, beside: Beside) -> tuple[Model, dict[str, int]]:
    what = f"{whole.what}: model"
    values = Values(whole["model"], {"type": "Unigram", "unk_id": None, "vocab": None, "byte_fallback": False}, what)
    values.only("byte_fallback", False)
    characters = b""
    normalizer = whole["normalizer"]
    first = _listed(normalizer, "normalizers")[:1]
    if first and type(first[0]) is dict and first[0].get("type") == "Precompiled":
        characters = _bytes(first[0].pop("precompiled_charsmap", None), whole.what)
    _only_steps(whole, "normalizer", "normalizers", T5_TEXTS)
    _only_steps(whole, "pre_tokenizer", "pretokenizers", T5_WORDS)
    vocab = values["vocab"]
    if type(vocab) is not list or not all(type(entry) is list and len(entry) == 2 for entry in vocab):
        values.refuse("vocab", vocab, "a list of pieces and their scores is expected")
    found = pieces.Pieces([(piece, score) for piece, score in vocab], values["unk_id"], characters)
    return pieces.model(found, extra, what, beside), {piece: number for number, (piece, _) in enumerate(vocab)}


def _bytes(text: Any, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what}: precompiled_charsmap is damaged; get the tokenizer again") from error


def _listed(steps: Any, inside: str) -> list:
    """One step, or a sequence of them, as a list; steps are not nested deeper in what is known."""
    if steps is None:
        return []
    many = type(steps) is dict and steps.get("type") == "Sequence" and type(steps.get(inside)) is list
    return steps[inside] if many else [steps]


def _only_steps(whole: Values, name: str, inside: str, known: Sequence[list]) -> None:
    """Refuse the steps `name` of a file unless they are among those that are known."""
    steps = [
        _step(str(step.get("type"))) | step if type(step) is dict else step for step in _listed(whole[name], inside)
    ]
    if steps not in known:
        whole.refuse(name, whole[name], "texts are read as CLIP's or T5's tokenizers do")


def _around(processor: Any) -> list[tuple[str, int] | None] | None:
    """The tokens and ids before and after a text, which is None; or None of a processor that is not known."""
    try:
        if processor["type"] == "RobertaProcessing":
            return [tuple(processor["cls"]), None, tuple(processor["sep"])]
        found = []
        for part in processor["single"] if processor["type"] == "TemplateProcessing" else ():
            name = part["SpecialToken"]["id"] if "SpecialToken" in part else None
            token = processor["special_tokens"][name] if name else {}
            found.append(name and (*token["tokens"], *token["ids"]))
        return found
    except (TypeError, KeyError, IndexError):
        return None


def _numbered(added: Any, what: str) -> dict[int, Special]:
    """The tokens of a list of objects, each with its id."""
    if added is None:
        return {}
    if type(added) is not list or not all(type(one) is dict for one in added):
        raise InputError(f"{what} = {shown(added)} is no list of tokens")
    objects = {
        str(special.identity(one.get("id"), what)): {name: value for name, value in one.items() if name != "id"}
        for one in added
    }
    if len(objects) < len(added):
        raise InputError(f"{what}: an id comes twice; get the tokenizer again")
    return special.numbered(objects, what)
