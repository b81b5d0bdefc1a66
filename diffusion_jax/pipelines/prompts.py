"""Texts of a person as what a pipeline's networks are told: by its tokenizers and its encoders.

Encoders run before the chain and apart from it, once for each text. They are let go before its network is read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.core.protocols import SampleCondition, Tree
from diffusion_jax.diffusion import stages
from diffusion_jax.diffusion.stages import Stage
from diffusion_jax.pipelines.told import NULL
from diffusion_jax.pretrained.encoders import Encoder
from diffusion_jax.pretrained.tokenizers import Tokenizer

PROMPT, NEGATIVE = "prompt", "negative"  # the entries of a person's wishes: lists of texts
STAGE = "text"
TOGETHER = 16  # texts that are encoded at a time
IDS, MASK = "ids", "mask"

# `(what an encoder says of texts, their mask [B, L]) -> {name: array [B, ...]}`.
Entries: TypeAlias = Callable[[Any, jax.Array], Mapping[str, jax.Array]]


class Part(NamedTuple):
    """An encoder of texts, of which a pipeline may have several.

    Attributes:
      tokenizer: of its texts.
      encoder: the network.
      entries: what networks are told of what it says.
      masked: whether it does not see where there is no text.
    """

    tokenizer: Tokenizer
    encoder: Encoder
    entries: Entries
    masked: bool = False


class Texts(NamedTuple):
    """What a pipeline makes of texts.

    Attributes:
      parts: its encoders. What several of them give under one name is laid side by side.
      clean: `text -> text`, before it is told.
      zeros: whether zeros stand for no text, where no other is asked for; else the empty text is encoded.
    """

    parts: tuple[Part, ...]
    clean: Callable[[str], str] = str
    zeros: bool = False

    def ids(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        """Texts as the stage takes them: for each part number n "ids_n", int32 [N, L], and "mask_n", bool [N, L].

        A text that is cut is told on the screen.

        Raises:
          InputError: as of the tokenizers.
        """
        found = {}
        for number, part in enumerate(self.parts):
            cleaned = [self.clean(text) for text in texts]
            tokens = part.tokenizer.encode(cleaned)
            found |= {f"{IDS}_{number}": tokens.ids, f"{MASK}_{number}": tokens.mask}
            for text in dict.fromkeys(cleaned) if number == 0 else ():
                if cut := part.tokenizer.cut(text):
                    line(f"a text of more than {part.tokenizer.length} tokens is cut; not read is: {cut[:200]!r}")
        return found

    def stage(self) -> Stage:
        """The encoders as one stage: it needs the entries of `ids`. Its params are {number of a part: its own}."""

        def encode(params, cond):
            together: dict[str, list[jax.Array]] = {}
            for number, part in enumerate(self.parts):
                ids, mask = cond[f"{IDS}_{number}"], cond[f"{MASK}_{number}"] > 0
                seen = (ids, mask) if part.masked else (ids,)
                said = part.encoder.network.model.apply({"params": params[str(number)]}, *seen)
                for name, x in part.entries(said, mask).items():
                    together.setdefault(name, []).append(x)
            return {name: jnp.concatenate(parts, axis=-1) for name, parts in together.items()}

        lengths = {str(number): (part.tokenizer.length,) for number, part in enumerate(self.parts)}
        needs = {f"{kind}_{number}": shape for number, shape in lengths.items() for kind in (IDS, MASK)}
        templates = {str(number): part.encoder.network.template() for number, part in enumerate(self.parts)}
        one = {name: jax.ShapeDtypeStruct((1, *shape), np.int32) for name, shape in needs.items()}
        gives = {name: x.shape[1:] for name, x in jax.eval_shape(encode, templates, one).items()}
        return stages.encode(STAGE, encode, needs, gives)

    def read(self) -> Tree:
        """The parameters of the stage."""
        return {str(number): part.encoder.read() for number, part in enumerate(self.parts)}

    def encoded(self, prompts: Sequence[str], negatives: Sequence[str] | None) -> dict[str, np.ndarray]:
        """What networks are told of `prompts`, and under "null_NAME" what withholds it: `negatives`, in turn.

        Returns:
          name -> float32 or bool [N, ...] of the prompts; what withholds them is [M, ...] of M negatives, 1 for none.
        """
        withheld = [""] if negatives is None else list(negatives)
        zeros = negatives is None and self.zeros
        different = list(dict.fromkeys([*prompts, *([] if zeros else withheld)]))
        found = self._of(different)
        row = {text: number for number, text in enumerate(different)}
        told = {name: x[[row[text] for text in prompts]] for name, x in found.items()}
        if zeros:
            return told | {NULL + name: np.zeros_like(x[:1]) for name, x in found.items()}
        return told | {NULL + name: x[[row[text] for text in withheld]] for name, x in found.items()}

    def _of(self, texts: Sequence[str]) -> dict[str, np.ndarray]:
        stage, ids, params = self.stage(), self.ids(texts), self.read()
        size = min(TOGETHER, len(texts))
        encode = jax.jit(lambda params, cond: stage.run(params, None, cond))  # it draws nothing
        parts = []
        for start in tqdm(range(0, len(texts), size), unit="texts", disable=len(texts) <= size):
            # The last are as many as the others, so that nothing is compiled twice.
            rows = np.minimum(np.arange(start, start + size), len(texts) - 1)
            parts.append(jax.device_get(encode(params, {name: x[rows] for name, x in ids.items()})))
        return {name: np.concatenate([part[name] for part in parts])[: len(texts)] for name in parts[0]}


def telling(texts: Texts, told: Mapping[str, tuple], rest: SampleCondition) -> SampleCondition:
    """`rest`, which also takes "prompt" and "negative", lists of texts: the entries `told` are made of them."""

    def condition(num, given):
        given = dict(given)
        prompts, negatives = given.pop(PROMPT, None), given.pop(NEGATIVE, None)
        if prompts is None:
            if negatives is not None:
                raise InputError("--negative says what pictures should not show; give --prompt with what they should")
            return rest(num, given)
        if twice := sorted(set(told) & set(given)):
            raise InputError(f"--prompt and --condition with {twice[0]} are different texts; give one of them")
        made = texts.encoded(list(prompts)[:num], negatives and list(negatives))
        return rest(num, {**given, **{name: x for name, x in made.items() if name in told}})

    return condition


def refusing(remedy: str, rest: SampleCondition) -> SampleCondition:
    """`rest`, of a model that takes no texts: `remedy` says what it takes."""

    def condition(num, given):
        if PROMPT in given or NEGATIVE in given:
            raise InputError(f"this model reads no --prompt: {remedy}")
        return rest(num, given)

    return condition
