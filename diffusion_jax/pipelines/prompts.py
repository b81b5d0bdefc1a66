"""Texts of a person as what a pipeline's networks are told: by its tokenizers and its encoders.

Encoders run before the chain and apart from it, once for each text. They are let go before its network is read.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.core.protocols import SampleCondition, Tree
from diffusion_jax.diffusion import stages
from diffusion_jax.diffusion.stages import NULL, Shape, Stage, nulls
from diffusion_jax.pipelines.told import Told
from diffusion_jax.pretrained.encoders import Encoder
from diffusion_jax.pretrained.tokenizers import Tokenizer
from diffusion_jax.training.experiment import Encoding, in_turn

PROMPT, NEGATIVE = "prompt", "negative"  # the entries of a person's wishes: lists of texts
STAGE = "text"
TOGETHER = 16  # texts that are encoded at a time
IDS, MASK = "ids", "mask"
WITHHOLDS = "withholds"  # whether a text withholds others, [B]

# `(what an encoder says of texts, their mask [B, L]) -> {name: array [B, ...]}`.
Entries: TypeAlias = Callable[[Any, jax.Array], Mapping[str, jax.Array]]


class Part(NamedTuple):
    """An encoder of texts, of which a pipeline may have several.

    Attributes:
      tokenizer: of its texts.
      encoder: the network.
      entries: what networks are told of what it says.
      steered: whether a negative text withholds that; else the empty text always does.
      null: the entries of what withholds texts; None for `entries`.
    """

    tokenizer: Tokenizer
    encoder: Encoder
    entries: Entries
    steered: bool = True
    null: Entries | None = None


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
        first = self.parts[0].tokenizer
        for text in dict.fromkeys(texts):
            if cut := first.cut(self.clean(text)):
                line(f"a text of more than {first.length} tokens is cut; not read is: {cut[:200]!r}")
        return self._ids([texts] * len(self.parts))

    def withheld(self, negatives: Sequence[str] | None) -> dict[str, np.ndarray]:
        """The same of what withholds texts: of `negatives`, or of the empty text, without tokens where zeros do."""
        texts = [""] if negatives is None else list(negatives)
        found = self._ids([texts if part.steered else [""] * len(texts) for part in self.parts])
        if negatives is None and self.zeros:
            found = {name: np.zeros_like(x) if name.startswith(MASK) else x for name, x in found.items()}
        return found

    def _ids(self, texts: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
        """Of texts of each part."""
        found: dict[str, np.ndarray] = {}
        for number, (part, of_part) in enumerate(zip(self.parts, texts, strict=True)):
            tokens = part.tokenizer.encode([self.clean(text) for text in of_part])
            found |= {f"{IDS}_{number}": tokens.ids, f"{MASK}_{number}": tokens.mask}
        return found

    def encode(self, params: Tree, cond: Mapping[str, Tree]) -> dict[str, jax.Array]:
        """What the encoders say of the entries of `ids` and of "withholds", zeros of a text of no tokens.

        params is {number of a part: its own}.
        """
        together: dict[str, list[jax.Array]] = {}
        for number, part in enumerate(self.parts):
            ids, mask = cond[f"{IDS}_{number}"], cond[f"{MASK}_{number}"] > 0
            seen = (ids, mask) if part.encoder.masked else (ids,)
            said = part.encoder.network.model.apply({"params": params[str(number)]}, *seen)
            some = mask.any(1)
            found = part.entries(said, mask)
            if part.null is not None:
                withholds, null = cond[WITHHOLDS] > 0, part.null(said, mask)
                found = {name: jnp.where(expand(withholds, x), null[name], x) for name, x in found.items()}
            for name, x in found.items():
                together.setdefault(name, []).append(jnp.where(expand(some, x), x, jnp.zeros_like(x)))
        return {name: jnp.concatenate(parts, axis=-1) for name, parts in together.items()}

    def stage(self, wanted: Mapping[str, Shape]) -> Stage:
        """`encode` as a stage, from the entries of `told` to those that are `wanted`."""
        lengths = {str(number): (part.tokenizer.length,) for number, part in enumerate(self.parts)}
        needs = {f"{kind}_{number}": shape for number, shape in lengths.items() for kind in (IDS, MASK)}
        templates = {str(number): part.encoder.network.template() for number, part in enumerate(self.parts)}
        one = {name: jax.ShapeDtypeStruct((1, *shape), np.int32) for name, shape in [*needs.items(), (WITHHOLDS, ())]}
        gives = {name: x.shape[1:] for name, x in jax.eval_shape(self.encode, templates, one).items()}

        def both(params, cond):
            no = jnp.zeros(len(cond[f"{IDS}_0"]), bool)
            told = self.encode(params, {WITHHOLDS: no, **{name: cond[name] for name in needs}})
            null = self.encode(params, {WITHHOLDS: ~no, **{name: cond[NULL + name] for name in needs}})
            return {name: x for name, x in (told | nulls(null)).items() if name in wanted}

        shapes = {**gives, **nulls(gives)}
        return stages.encode(STAGE, both, {**needs, **nulls(needs)}, {name: shapes[name] for name in wanted})

    def told(self, prompts: Sequence[str], negatives: Sequence[str] | None) -> dict[str, np.ndarray]:
        """What `stage` takes of texts, and of those that withhold them, in turn."""
        return self.ids(prompts) | nulls(in_turn(self.withheld(negatives), len(prompts)))

    def read(self) -> Tree:
        """The parameters of the stage."""
        return {str(number): part.encoder.read() for number, part in enumerate(self.parts)}

    def encoded(self, prompts: Sequence[str], negatives: Sequence[str] | None) -> dict[str, np.ndarray]:
        """What networks are told of `prompts`, and under "null_NAME" what withholds it: `negatives`, in turn.

        Returns:
          name -> float32 or bool [N, ...] of the prompts; what withholds them is [M, ...] of M negatives, 1 for none.
        """
        told, null = self.ids(prompts), self.withheld(negatives)
        rows = {name: np.concatenate([told[name], null[name]]) for name in told}
        if any(part.null is not None for part in self.parts):
            rows[WITHHOLDS] = np.arange(len(rows[f"{IDS}_0"])) >= len(prompts)
        # Each text once, however often it comes.
        flat = np.concatenate([x.astype(np.int32).reshape(len(x), -1) for x in rows.values()], axis=1)
        _, first, place = np.unique(flat, axis=0, return_index=True, return_inverse=True)
        found = self._encoded({name: x[first] for name, x in rows.items()})
        found = {name: x[place.reshape(-1)] for name, x in found.items()}
        num = len(prompts)
        return {name: x[:num] for name, x in found.items()} | nulls({name: x[num:] for name, x in found.items()})

    def _encoded(self, ids: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        num, params = len(ids[f"{IDS}_0"]), self.read()
        size = min(TOGETHER, num)
        encode = jax.jit(self.encode)
        parts = []
        for start in tqdm(range(0, num, size), unit="texts", disable=num <= size):
            # The last are as many as the others, so that nothing is compiled twice.
            rows = np.minimum(np.arange(start, start + size), num - 1)
            said = jax.device_get(encode(params, {name: x[rows] for name, x in ids.items()}))
            parts.append({name: x if x.dtype == bool else x.astype(np.float32) for name, x in said.items()})
        return {name: np.concatenate([part[name] for part in parts])[:num] for name in parts[0]}


def telling(texts: Texts, told: Told) -> SampleCondition:
    """The condition of a network, which also takes "prompt" and "negative", lists of texts: it is told of them."""

    def condition(num, given):
        given = dict(given)
        prompts, negatives = given.pop(PROMPT, None), given.pop(NEGATIVE, None)
        if prompts is None:
            if negatives is not None:
                raise InputError("--negative says what pictures should not show; give --prompt with what they should")
            if not set(told.text) & set(given):
                raise InputError('this model draws what a text says: give --prompt "a photo of a cat", say')
            return told.condition(num, given)
        if twice := sorted(set(told.text) & set(given)):
            raise InputError(f"--prompt and --condition with {twice[0]} are different texts; give one of them")
        made = texts.encoded(list(prompts)[:num], None if negatives is None else list(negatives))
        return told.condition(num, {**given, **{name: x for name, x in made.items() if name in told.text}})

    return condition


def refusing(remedy: str, told: Told) -> SampleCondition:
    """The condition of a network without encoders: `remedy` says what it takes."""

    def condition(num, given):
        if PROMPT in given or NEGATIVE in given:
            raise InputError(f"this model reads no --prompt: {remedy}")
        return told.condition(num, given)

    return condition


def encoding(texts: Texts, told: Told) -> Encoding:
    """How the texts of a network enter its program."""
    return Encoding(texts.told, lambda: texts.stage(told.text), texts.read)
