"""What a student learns from: a network that is held, and estimates that it is taught."""

from functools import partial

import jax

from diffusion_jax.core import rng
from diffusion_jax.core.distributions import mean_over_entries
from diffusion_jax.core.protocols import Apply, Guide, MakeLoss, OfTime, Taught, Teacher, TimesOf, Tree
from diffusion_jax.diffusion.guidance import conditioned
from diffusion_jax.diffusion.parameterizations import Parameterization, denoiser


def held(
    apply: Apply, parameterization: Parameterization, guide: Guide = conditioned, name: str = "teacher"
) -> Teacher:
    """A teacher `(context, *cond) -> Denoiser` with the parameters `context.held[name]`, without dropout.

    Args:
      apply: its network, `(params, input [B, ...], time [B], *cond) -> output`.
      parameterization: what it is shown and says, of the times that the student is trained at.
      guide: what is made of the condition (`guidance.classifier_free`, `guided.by_told_scale`).
      name: of its parameters.
    """

    def teacher(context, *cond):
        return guide(denoiser(partial(apply, context.held[name]), parameterization), *cond)

    return teacher


def one(t: Tree) -> float:
    """No weight."""
    return 1.0


def toward(wanted: Taught, weight: OfTime = one, time: TimesOf = lambda t: t) -> MakeLoss:
    """The loss of a student's x0 by its mean squared distance from one that it is taught, as `Method.loss` takes it.

    Args:
      wanted: `(x_t [B, ...], context, *cond) -> x0 [B, ...]`; no gradient goes through it.
      weight: of the squared error, at t.
      time: `context.t -> t [B]`, where the student is asked.
    """

    def make(apply, parameterization, process):
        def loss(keys, params, x0, context, *cond):
            t = time(context.t)
            noise_keys, dropout_keys = rng.split(keys, 2)
            x_t, _ = jax.vmap(process.corrupt)(noise_keys, x0, t)
            student = denoiser(partial(apply, params, dropout_keys=dropout_keys), parameterization)
            taught = jax.lax.stop_gradient(wanted(x_t, context, *cond))
            return weight(t) * mean_over_entries((student(x_t, t, *cond).mean - taught) ** 2), {}

        return loss

    return make
