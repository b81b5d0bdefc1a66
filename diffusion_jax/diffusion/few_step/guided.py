"""Guided distillation (Meng et al. 2023): one network that is told the scale of guidance, for two that are mixed.

Stage 1 teaches a student the guided estimate of a teacher, at scales drawn at random. Stage 2 halves its steps
(`progressive`), the scale drawn as before. The student is told the scale under the name "guidance_scale": g, Ho &
Salimans' w + 1, one number an example, [B]; 1 is no guidance.
"""

import jax
import jax.numpy as jnp

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Guide, Loss, MakeLoss, Null, OfTime, Teacher
from diffusion_jax.diffusion.few_step import teachers
from diffusion_jax.diffusion.guidance import classifier_free

NAME = "guidance_scale"


def by_told_scale(null: Null, name: str = NAME) -> Guide:
    """The guide of a teacher with an unconditional half: classifier-free guidance with the scale `cond[name]`, [B],
    which the teacher itself is not told. `null` as of `guidance.classifier_free`."""

    def guide(denoise, cond):
        rest = {other: value for other, value in cond.items() if other != name}
        return classifier_free(null, cond[name])(denoise, rest)

    return guide


def at_scale(scale: float, name: str = NAME) -> Guide:
    """The guide of a student: it is told this scale beside its condition, if it has one, in a single look."""

    def guide(denoise, *cond):
        def guided(x_t, t):
            scales = jnp.full(jax.tree.leaves(x_t)[0].shape[0], scale, jnp.float32)
            return denoise(x_t, t, _joined(cond, name, scales))

        return guided

    return guide


def told(loss: Loss, low: float, high: float, name: str = NAME) -> Loss:
    """`loss` of examples that are told a scale as well, each its own, uniform in [low, high].

    Where the data has a scale for each example (a network is described from it), the drawn one takes its place.

    Raises:
      InputError: unless low <= high.
    """
    if not low <= high:
        raise InputError(f"scales of guidance are drawn from a range, not from {low} to {high}")

    def telling(keys, params, x0, context, *cond):
        keys, scale_keys = rng.split(keys, 2)
        scale = jax.vmap(lambda key: jax.random.uniform(key, minval=low, maxval=high))(scale_keys)
        return loss(keys, params, x0, context, _joined(cond, name, scale))

    return telling


def _joined(cond, name: str, scale) -> dict:
    """One condition of the one there is, or of none, and the scale."""
    return {key: value for one in cond for key, value in one.items()} | {name: scale}


def distillation(teacher: Teacher, weight: OfTime) -> MakeLoss:
    """Stage 1's loss, weight(t) ||x0(x_t, t, g) - x0_g||^2 (Meng et al. 2023, equation 2), as `Method.loss` takes it.

    Wrap what it makes in `told`. `context.t` is the times [B].

    Args:
      teacher: `(context, cond) -> Denoiser`: `teachers.held(..., guide=by_told_scale(null))`. Not clipped: mixing is
        the same in x0, eps, v and the score, but not after clipping.
      weight: of the squared error in x0 (`losses.truncated_snr`).
    """
    return teachers.toward(lambda x_t, context, *cond: teacher(context, *cond)(x_t, context.t).mean, weight)
