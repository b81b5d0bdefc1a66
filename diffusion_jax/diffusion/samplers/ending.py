"""What is made of a chain's samples, whichever walk drew them: data, a film or the place of a break."""

from collections.abc import Callable
from typing import Any

import jax

from diffusion_jax.core.protocols import Tree
from diffusion_jax.diffusion.samplers.breaking import Break
from diffusion_jax.diffusion.samplers.core import Film


def ended(drawn: Any, end: Callable[[Tree], Tree], frames: Callable[[Tree, Tree], Tree] | None = None) -> Any:
    """`end` of the samples, such as a decoder; a `Break` stays as it is.

    Args:
      drawn: what a walk gives: data [B, ...], a `Film` or a `Break`.
      end: `x [B, ...] -> samples`.
      frames: `(pictures [F + 1, B, ...], samples) -> pictures`, what is made of a film's frames; None for `end` of
        each of them.
    """
    match drawn:
        case Film(x, pictures):
            samples = end(x)
            return Film(samples, jax.lax.map(end, pictures) if frames is None else frames(pictures, samples))
        case Break():
            return drawn
        case x:
            return end(x)
