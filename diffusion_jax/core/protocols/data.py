"""Data: where it comes from, what samples are told, how they are kept."""

from collections.abc import Mapping, Sequence
from typing import IO, Any, Protocol

import jax
import numpy as np

from diffusion_jax.core.protocols.values import Tree


class Examples(Protocol):
    """Random access to examples: `examples[i] -> {name: array}`, NumPy's (`data.sources`)."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


class Source(Protocol):
    """`split -> examples` of "train" or "test"."""

    def __call__(self, split: str, /) -> Examples: ...


class SampleCondition(Protocol):
    """`(num, name -> array that a person gave) -> () or (cond,)`: what `num` samples are told (`data.conditions`)."""

    def __call__(self, num: int, given: Mapping[str, Any], /) -> tuple: ...


class DefaultCondition(Protocol):
    """`num -> {name: [N, ...]}`: what is told where nothing was given; N need not be `num`."""

    def __call__(self, num: int, /) -> dict[str, Any]: ...


class EncodeTexts(Protocol):
    """`texts [N] -> (ids int32 [N, L], mask bool [N, L])`, true where there is text; `InputError` for others."""

    def __call__(self, texts: Sequence[str], /) -> tuple[np.ndarray, np.ndarray]: ...


class Save(Protocol):
    """Writes to a binary file that is open."""

    def __call__(self, file: IO[bytes], /) -> Any: ...


class Files(Protocol):
    """`samples [N, ...] -> {file name: save}`: what is kept of samples."""

    def __call__(self, samples: Tree, /) -> dict[str, Save]: ...


class Picture(Protocol):
    """`samples [N, ...] -> uint8 [H, W, C]`, C = 1 or 3; of a film, frames [F, N, ...] are given."""

    def __call__(self, samples: Tree, /) -> np.ndarray: ...


class Film(Protocol):
    """`samples [N, ...] -> pictures`, uint8 [H, W, C] each and all of one size: samples that are films, as such."""

    def __call__(self, samples: Tree, /) -> Sequence[np.ndarray]: ...


class Images(Protocol):
    """`samples [N, ...] -> uint8 [N, H, W, C]`."""

    def __call__(self, samples: Tree, /) -> np.ndarray: ...


class FromImages(Protocol):
    """`images uint8 [N, H, W, C] -> samples [N, H, W, C]`, the inverse of `Images`."""

    def __call__(self, images: np.ndarray, /) -> np.ndarray: ...


class Features(Protocol):
    """`images uint8 [B, H, W, C] -> {name: float [B, D]}`: what an extractor sees (`evaluation.extractors`)."""

    def __call__(self, images: jax.Array, /) -> Mapping[str, jax.Array]: ...
