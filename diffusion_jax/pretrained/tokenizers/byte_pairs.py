"""CLIP's tokenizer: pairs of bytes that are merged (Sennrich et al. 2015; the byte alphabet is GPT-2's)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.published import shown
from diffusion_jax.pretrained.tokenizers.model import Model
from diffusion_jax.pretrained.tokenizers.special import LARGEST, NOTHING, Beside, Special, identity
from diffusion_jax.pretrained.tokenizers.tokens import library

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
ROLES = {"bos_token": Special(BOS), **dict.fromkeys(("eos_token", "unk_token", "pad_token"), Special(EOS))}
SETTINGS = {
    "tokenizer_class": (None, "CLIPTokenizer", "CLIPTokenizerFast"),
    "do_lower_case": (None, True),
    "add_prefix_space": (None, False),
    "unk_id": (None,),
}
VOCABULARY, MERGES = "vocab.json", "merges.txt"
MOST = 16 * files.MEBIBYTE  # bytes of either; CLIP's have one, and a half
END = "</w>"  # of a word's last letter
# A text falls into these: contractions, words, single digits, and runs of all else. Spaces are dropped.
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
MARKED = rf"<\|startoftext\|>|<\|endoftext\|>|{WORDS}"


def vocabulary(given: Any, what: str) -> dict[str, int]:
    """`given`, or `InputError` unless it maps at most `LARGEST` tokens to ids, each its own."""
    if type(given) is not dict or not 0 < len(given) <= LARGEST:
        raise InputError(f"{what} is no vocabulary: an object of 1 to {LARGEST} tokens with ids is expected")
    if len({identity(number, what) for number in given.values()}) < len(given):
        raise InputError(f"{what}: an id comes twice; get the tokenizer again")
    return given


def merges(given: Sequence[Any], known: Mapping[str, int], what: str) -> list[tuple[str, str]]:
    """Pairs of tokens, the most frequent first, as files list them: "a b", or two strings.

    Raises:
      InputError: an entry is no pair, or of a token that is not `known`, or makes one, or comes twice.
    """
    found: dict[tuple[str, str], None] = {}
    for entry in given:
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if type(pair) is not list or len(pair) != 2 or not all(isinstance(part, str) and part for part in pair):
            raise InputError(f"{what}: {shown(entry)} merges no pair of tokens; get the tokenizer again")
        missing = next((part for part in (*pair, "".join(pair)) if part not in known), None)
        if missing is not None:
            raise InputError(f"{what}: {shown(entry)} needs the token {shown(missing)}, which the vocabulary has not")
        found[pair[0], pair[1]] = None
    if len(found) < len(given):
        raise InputError(f"{what}: a pair comes twice; get the tokenizer again")
    return list(found)


def load(folder: Path) -> Model:
    """The model of a folder's vocab.json and merges.txt, whose first line may be a comment.

    Raises:
      InputError: a file cannot be read, or holds something else.
    """
    path, lines = folder / VOCABULARY, folder / MERGES
    known = vocabulary(files.json_object(path, MOST), str(path))
    try:
        pairs = files.read(lines, MOST).decode().split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{lines} is no text in UTF-8; get the tokenizer again") from error
    pairs = [line.removesuffix("\r") for line in pairs]
    pairs = [line for line in pairs[pairs[0].startswith("#version") :] if line]
    return model(known, merges(pairs, known, str(lines)), str(path))


def model(known: Mapping[str, int], pairs: Sequence[tuple[str, str]], what: str, beside: Beside = NOTHING) -> Model:
    """CLIP's model of a vocabulary: token -> id, the pairs that are merged, and further tokens."""

    def backend(roles: dict[str, Special]) -> Any:
        unknown = roles["unk_token"].content
        if unknown not in known:
            raise InputError(
                f"{what}: unk_token = {shown(unknown)} is not in the vocabulary; get the tokenizer again"
            )
        return _backend(known, pairs, unknown)

    return Model(backend, ROLES, ("bos_token", None, "eos_token"), beside, SETTINGS)


def _backend(known: Mapping[str, int], pairs: Sequence[tuple[str, str]], unknown: str) -> Any:
    """A text is brought to NFC and to small letters, and is split into words (`MARKED`); bytes of each are merged."""
    theirs = library()
    normal, split = theirs.normalizers, theirs.pre_tokenizers
    merged = theirs.models.BPE(
        vocab=known,
        merges=pairs,
        continuing_subword_prefix="",
        end_of_word_suffix=END,
        fuse_unk=False,
        unk_token=unknown,
    )
    made = theirs.Tokenizer(merged)
    spaces = normal.Replace(theirs.Regex(r"\s+"), " ")
    made.normalizer = normal.Sequence([normal.NFC(), spaces, normal.Lowercase()])
    words = split.Split(theirs.Regex(MARKED), behavior="removed", invert=True)
    made.pre_tokenizer = split.Sequence([words, split.ByteLevel(add_prefix_space=False)])
    return made
