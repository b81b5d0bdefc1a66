"""What the file of a vocabulary says, whichever it is."""

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from diffusion_jax.pretrained.tokenizers.special import Beside, Special


class MakeBackend(Protocol):
    """`role -> token` to a `tokenizers.Tokenizer` that knows nothing of special tokens yet."""

    def __call__(self, roles: dict[str, Special], /) -> Any: ...


class Model(NamedTuple):
    """A vocabulary, and what is done with texts.

    Attributes:
      backend: what runs it.
      roles: role ("eos_token") -> token, where a folder does not give another.
      around: the roles of the tokens before and after a text; None is the text.
      beside: the tokens beside the vocabulary that its file brings.
      settings: name in tokenizer_config.json -> what it may be.
    """

    backend: MakeBackend
    roles: dict[str, Special]
    around: tuple[str | None, ...]
    beside: Beside
    settings: Mapping[str, tuple]
