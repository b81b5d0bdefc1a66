"""What the file of a vocabulary says, whichever it is."""

from typing import Any, NamedTuple, Protocol

from diffusion_jax.pretrained.tokenizers.special import Beside, Special


class MakeBackend(Protocol):
    """`role -> token` to a `tokenizers.Tokenizer` that knows nothing of special tokens yet."""

    def __call__(self, roles: dict[str, Special], /) -> Any: ...


class Model(NamedTuple):
    """A vocabulary, and what is done with texts.

    Attributes:
      backend: what runs it.
      classes: its names in transformers.
      roles: role ("eos_token") -> token, where a folder does not give another.
      around: the roles of the tokens before and after a text; None is the text.
      beside: the tokens beside the vocabulary that its file brings.
      lower: whether texts are brought to small letters.
      unknown: the id of what is in no vocabulary, where that is no matter of its role.
    """

    backend: MakeBackend
    classes: tuple[str, ...]
    roles: dict[str, Special]
    around: tuple[str | None, ...]
    beside: Beside
    lower: bool
    unknown: int | None = None
