"""MeanFlow and improved MeanFlow (Geng et al. 2025, both): average velocities, learned from data alone.

On the straight line z_t = (1 - t) x + t e an example moves with v = e - x, and all of them together as the flow
dz/dt = E[v | z_t]. The network says the flow's average velocity over a span,

    u(z_t, t, s) = 1 / (t - s) integral_s^t (dz / dt') dt',        z_s = z_t - (t - s) u(z_t, t, s).

Differentiating (t - s) u along the flow, with s held, gives the MeanFlow identity (equation 6)

    u + (t - s) du/dt = dz/dt,        du/dt = (d_z u) dz/dt + d_t u,

whose left side V is regressed on v, du/dt held constant. The papers differ in what stands for dz/dt inside of du/dt:
`taught` or `predicted`. Our s is their r.

Parameterisations here are `parameterizations.flow_map` of a velocity, and schedules `schedules.flow`. Networks must
have derivatives forwards (fused attention has none), and compute them in float32.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import expand
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Apply, Law, Loss, Null, Time
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.diffusion.parameterizations import Parameterization
from diffusion_jax.diffusion.processes import Process
from diffusion_jax.diffusion.spans import Span
from diffusion_jax.diffusion.time_sampling import Times

# ---- Spans.


def pairs(first: Law, second: Law, apart: float) -> Times:
    """t and s are the larger and the smaller of two independent times; of the rest of a batch s is t.

    The share `apart` is exact, in whole examples: it stands at the end of the global batch. The official "ratio" of
    0.75 is apart = 0.25 in the code for ImageNet, where it says in how many s *is* t, and 0.75 in that for CIFAR-10.

    Args:
      first, second: laws (`time_sampling`), the quantile functions of the two times.
      apart: share of the examples with s < t, in [0, 1]; `InputError` otherwise.
    """
    if not 0 <= apart <= 1:
        raise InputError(f"a share of {apart} with two times apart: give one in [0, 1]")

    def draw(key, index, total):
        keys = rng.split(rng.per_example(key, index), 2)
        one, other = (law(jax.vmap(jax.random.uniform)(key)) for law, key in zip((first, second), keys, strict=True))
        t, s = jnp.maximum(one, other), jnp.minimum(one, other)
        return Span(t, jnp.where(index < round((1 - apart) * total), t, s))

    return time_sampling.forgetful(draw)


def imagenet_pairs(apart: float = 0.25) -> Times:
    """The spans of the official code for ImageNet: both times logit-normal (-0.4, 1), apart in a quarter."""
    law = time_sampling.logit_normal(-0.4, 1.0)
    return pairs(law, law, apart)


def cifar_pairs(apart: float = 0.75) -> Times:
    """The spans of the official code for CIFAR-10: (-0.6, 1.6) and (-4, 1.6), apart in three quarters.

    The smaller time is near the data in most pairs, where long steps end.
    """
    return pairs(time_sampling.logit_normal(-0.6, 1.6), time_sampling.logit_normal(-4.0, 1.6), apart)


Velocity: TypeAlias = Callable[..., jax.Array]  # `(z [B, ...], span [B], *cond) -> [B, ...]`
Along: TypeAlias = Callable[..., jax.Array]  # `(velocity, z [B, ...], t [B], v [B, ...], *cond) -> [B, ...]`


# ---- What u is regressed on: `(velocity, z, t, v, *cond) -> [B, ...]`, with u as `velocity(z, span, *cond)`.


def of_example(velocity: Velocity, z: jax.Array, t: Time, v: jax.Array, *cond: Any) -> jax.Array:
    """v = e - x, the example's own."""
    return v


def guided(null: Null, omega: float = 1.0, kappa: float = 0.0) -> Along:
    """Guidance inside (MeanFlow, equations 19 to 21): what is learned is the guided flow, drawn in one look a step.

        omega v + (1 - omega - kappa) u(z, t, t | nothing) + kappa u(z, t, t | cond)

    Its fixed point is classifier-free guidance of the scale omega / (1 - kappa). For examples that are not told their
    condition (`losses.withholding`) it is no guidance: both u are the same, and v is right in the mean.

    Args:
      null: `cond -> cond` that tells nothing (`guidance.replacing`).
      omega: weight of the example's velocity. The variance of what is regressed on grows with it.
      kappa: weight of what is said of the condition, below 1 (`InputError`): it raises the scale and no variance.
    """
    if not kappa < 1:
        raise InputError(f"guidance inside of omega {omega} and kappa {kappa}: kappa must be below 1")

    def regressed(velocity, z, t, v, cond):
        untold, told = (velocity(z, Span(t, t), each) for each in (null(cond), cond))
        return omega * v + (1 - omega - kappa) * untold + kappa * told

    return regressed


def guided_as_told(null: Null, name: str = "guidance_scale") -> Along:
    """Guidance inside of the scale that each example is told, g = `cond[name]` >= 1, [B] (improved MeanFlow).

        v + (1 - 1 / g) (u(z, t, t | cond, g) - u(z, t, t | nothing, g))

    Its fixed point is guidance of the scale g: `guided` with omega 1 and kappa 1 - 1 / g, the example's own. So one
    network is the flow of every scale that it was told (`few_step.guided.told`), and the variance of what is
    regressed on grows with none. `null` as of `guided`; it leaves the scale alone.
    """

    def regressed(velocity, z, t, v, cond):
        untold, told = (velocity(z, Span(t, t), each) for each in (null(cond), cond))
        return v + expand(1 - 1 / cond[name], z) * (told - untold)

    return regressed


# ---- The velocity that du/dt is taken along: `(velocity, z, t, regressed, *cond) -> [B, ...]`.


def taught(velocity: Velocity, z: jax.Array, t: Time, regressed: jax.Array, *cond: Any) -> jax.Array:
    """What is regressed on (MeanFlow): right only in the mean, so that the loss's floor is not Var(v | z)."""
    return regressed


def predicted(velocity: Velocity, z: jax.Array, t: Time, regressed: jax.Array, *cond: Any) -> jax.Array:
    """What the network says itself of dz/dt (improved MeanFlow): V depends on z alone, a regression like others."""
    return velocity(z, Span(t, t), *cond)


# ---- The loss.


def adaptive(power: float = 1.0, offset: float = 1e-2) -> Callable[[jax.Array], jax.Array]:
    """The weight sg((error + offset)^-power) of a squared error [B] (MeanFlow, equation 22).

    With power 1 the weighted loss stays near 1 whatever the error.
    """
    return lambda error: (error + offset) ** -power


DIVIDED = adaptive()


def mean_flow(
    apply: Apply,
    parameterization: Parameterization,
    process: Process,
    regressed: Along = of_example,
    along: Along = taught,
    weight: Callable[[jax.Array], jax.Array] = DIVIDED,
) -> Loss:
    """|u + (t - s) sg(du/dt) - sg(v)|^2, summed over an example's entries, and weighted; `context.t` is a `Span` [B].

    `info` has the "squared_error" before weighting. All looks of the network at an example have the same dropout.

    Args:
      apply, parameterization, process: as of `losses.of_criterion`, see above.
      regressed: v, `of_example` or `guided`.
      along: dz/dt within du/dt, `taught` or `predicted`.
      weight: `error [B] -> [B]`, taken as constant; `adaptive`.
    """

    def loss(keys, params, x0, context, *cond):
        t, s = context.t
        noise_keys, dropout_keys = rng.split(keys, 2)
        z, noise = jax.vmap(process.corrupt)(noise_keys, x0, t)

        def velocity(z, span, *cond):
            return apply(params, *parameterization.scale(z, span), *cond, dropout_keys=dropout_keys)

        v = regressed(velocity, z, t, parameterization.target(x0, noise, t), *cond)
        tangents = along(velocity, z, t, v, *cond), Span(jnp.ones_like(t), jnp.zeros_like(s))
        u, slope = jax.jvp(lambda z, span: velocity(z, span, *cond), (z, Span(t, s)), tangents)
        constant = jax.lax.stop_gradient(v - expand(t - s, z) * slope)
        error = ((u - constant) ** 2).reshape(len(z), -1).sum(-1)
        return jax.lax.stop_gradient(weight(error)) * error, {"squared_error": error}

    return loss
