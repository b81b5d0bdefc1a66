"""Guidance: what is done to a denoiser before the sampler sees it.

A conditional denoiser is `(x_t [B, ...], t, *cond) -> Estimate`; `cond` is one dictionary of arrays that lead with B,
or nothing. A *guide* `(conditional denoiser, *cond) -> Denoiser` decides how the condition is used: `conditioned`,
`classifier_free`, `autoguidance`. A *transform* `Denoiser -> Denoiser` may follow: `clip`, `dynamic_threshold`,
`classifier`.

Guidance happens on the estimate of x0: means D become D_u + g (D_c - D_u). That is the same rule as for eps, v or the
score, each a linear function of x0 and x_t: the part in x_t cancels from the difference. g is Ho & Salimans' w + 1; 1
is the conditional estimate, 0 the unconditional one. The chain of a guided denoiser does *not* sample
p(x0) p(y | x0)^g: that law, noised, has another score (Bradley & Nakkiran 2024).

A *scale* g is a number; an array [B], one an example; an array with as many axes as x that broadcasts to it
(`channels`); or a function of t that returns any of these (`within`). `InputError` for other shapes.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import expand
from diffusion_jax.core.distributions import along
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import (
    ConditionalDenoiser,
    Converted,
    Denoiser,
    Estimate,
    Gradient,
    Guide,
    LogProb,
    Null,
    OfTime,
    Rescale,
    Time,
    Transform,
    Tree,
)
from diffusion_jax.diffusion.gaussian import eps_from_x0, v_from_x0, x0_from_eps, x0_from_v
from diffusion_jax.diffusion.schedules import Schedule
from diffusion_jax.diffusion.stages import NULL

# ---- Guides.


def conditioned(denoise: ConditionalDenoiser, *cond: Any) -> Denoiser:
    """The plain guide: the network is told the condition, if there is one, and its word is taken."""
    return lambda x_t, t: denoise(x_t, t, *cond)


def as_it_is(guided: Estimate, conditional: Estimate, x_t: Tree, t: Time) -> Estimate:
    """No rescaling."""
    del conditional, x_t, t
    return guided


def classifier_free(null: Null, scale: Any, rescale: Rescale = as_it_is) -> Guide:
    """Classifier-free guidance (Ho & Salimans 2022, equation 6), as a guide.

    Both estimates come from one call of the network on the batch twice over. Their means are extrapolated (tokens:
    their log probabilities); a learned variance is the conditional one's, not guided. Estimates may be dictionaries.

    Args:
      null: `cond -> cond`, the condition that stands for none, as `replacing` makes it; entries may have any shape
        that broadcasts to the condition's.
      scale: g, see above.
      rescale: `(guided, conditional, x_t, t) -> Estimate`, what is done to the guided estimate: `rescaled_eps`, ....

    Raises:
      InputError: when it is used, for no condition, a `null` of other names or shapes, or a scale of a wrong shape.
    """

    def guide(denoise, *cond):
        if not jax.tree.leaves(cond):
            raise InputError("classifier-free guidance needs a condition: sample_fn(params, rng, cond)")
        (cond,) = cond

        def guided(x_t, t):
            conditional, unconditional = _both(denoise, x_t, t, cond, null(cond))
            return rescale(_guided(conditional, unconditional, _at(scale, t)), conditional, x_t, t)

        return guided

    return guide


def replacing(**nulls: Any) -> Null:
    """`cond -> cond` with these entries in place of its own: `replacing(label=classes)` withholds the label.

    Each is a number or an array that broadcasts to the entry: [L, D] for encoded texts [B, L, D]. Others are kept.
    """
    return lambda cond: cond | nulls


def by_nulls(scale: Any, rescale: Rescale = as_it_is) -> Guide:
    """Classifier-free guidance away from the entries "null_NAME" of a condition, in place of NAME, as a guide.

    For what an encoder makes of the empty text, say, once and not at every step (`stages.nulls`). At scale 1 these
    entries are not used: half the work.

    Args:
      scale, rescale: as of `classifier_free`.
    """

    def guide(denoise, cond):
        told = {name: x for name, x in cond.items() if not name.startswith(NULL)}
        if np.ndim(scale) == 0 and not callable(scale) and scale == 1:
            return conditioned(denoise, told)
        nulls = {name.removeprefix(NULL): x for name, x in cond.items() if name.startswith(NULL)}
        return classifier_free(replacing(**nulls), scale, rescale)(denoise, told)

    return guide


def autoguidance(weaker: ConditionalDenoiser, scale: Any, rescale: Rescale = as_it_is) -> Guide:
    """Away from a worse model that is told the same, D_weak + g (D - D_weak) (Karras et al. 2024), as a guide.

    Args:
      weaker: a conditional denoiser, its parameters inside: a smaller network or one that was trained less.
      scale: g, see above.
      rescale: as of `classifier_free`.
    """

    def guide(denoise, *cond):
        def guided(x_t, t):
            strong = denoise(x_t, t, *cond)
            return rescale(_guided(strong, weaker(x_t, t, *cond), _at(scale, t)), strong, x_t, t)

        return guided

    return guide


# ---- Scales.


def within(scale: Any, low: float, high: float) -> OfTime:
    """The scale at low < t <= high, and 1, no guidance, elsewhere (Kynkäänniemi et al. 2024).

    The paper's interval is one of noise levels: for continuous schedules
    `schedules.inverse_log_snr(schedule, -2 log(level))` is their time, for tables their entries are.

    Args:
      scale: any scale, see above.
      low, high: 0 <= low < high <= 1; `InputError` otherwise.
    """
    if not 0 <= low < high <= 1:
        raise InputError(f"guidance is kept within 0 <= low < high <= 1, not {low} and {high}")

    def limited(t):
        value, t = jnp.asarray(_at(scale, t)), jnp.asarray(t)
        return jnp.where(expand((low < t) & (t <= high), value), value, 1.0)

    return limited


def channels(scale: Any, count: int, total: int) -> OfTime:
    """The scale for the first `count` of `total` channels of images [B, H, W, C], 1 for the others.

    DiT's published samples guide 3 of the 4 latent channels (Peebles & Xie 2023, appendix A). scale: a number, [B],
    or a function of t that returns these. Raises `InputError` unless 0 < count <= total.
    """
    if not 0 < count <= total:
        raise InputError(f"the guided channels are 1 to {total} of {total}, not {count}")

    def chosen(t):
        value = jnp.asarray(_at(scale, t))
        return jnp.where(jnp.arange(total) < count, value.reshape(value.shape + (1,) * (4 - value.ndim)), 1.0)

    return chosen


# ---- Rescaling: a large scale makes predictions too large, and pictures overexposed.


def rescaled(phi: float, to: Converted, back: Converted) -> Rescale:
    """Give the guided prediction the size of the conditional one (Lin et al. 2024, equations 15 and 16).

        prediction <- phi (std_c / std) prediction + (1 - phi) prediction,

    std over all of an example's entries, a prediction being what the network was trained to say.

    Args:
      phi: in [0, 1]; the paper has 0.7. `InputError` otherwise.
      to: `(x0, x_t, t) -> prediction`.
      back: `(prediction, x_t, t) -> x0`.
    """
    if not 0 <= phi <= 1:
        raise InputError(f"a rescaling of guidance phi must lie in [0, 1], not {phi}")

    def rescale(guided, conditional, x_t, t):
        prediction, wanted = to(guided.mean, x_t, t), to(conditional.mean, x_t, t)
        axes = tuple(range(1, prediction.ndim))
        std = jnp.std(prediction, axes, keepdims=True)
        # A prediction without any spread has no size to correct.
        ratio = jnp.where(std > 0, jnp.std(wanted, axes, keepdims=True) / jnp.where(std > 0, std, 1.0), 1.0)
        return guided._replace(mean=back((phi * ratio + 1 - phi) * prediction, x_t, t))

    return rescale


def rescaled_x0(phi: float) -> Rescale:
    """`rescaled` for networks that predict x0."""
    return rescaled(phi, lambda x0, x_t, t: x0, lambda x0, x_t, t: x0)


def rescaled_eps(schedule: Schedule, phi: float) -> Rescale:
    """`rescaled` for networks that predict eps; alpha(t) > 0 and t > 0."""
    return rescaled(
        phi,
        lambda x0, x_t, t: eps_from_x0(schedule, x_t, x0, t),
        lambda eps, x_t, t: x0_from_eps(schedule, x_t, eps, t),
    )


def rescaled_v(schedule: Schedule, phi: float) -> Rescale:
    """`rescaled` for networks that predict v; t > 0."""
    return rescaled(
        phi,
        lambda x0, x_t, t: v_from_x0(schedule, x0, eps_from_x0(schedule, x_t, x0, t), t),
        lambda v, x_t, t: x0_from_v(schedule, x_t, v, t),
    )


# ---- A classifier's guidance.


def gradient(log_prob: LogProb) -> Gradient:
    """`(x_t [B, ...], t) -> [B, ...]`, each example's gradient of `log_prob(x_t, t)` [B], log p(y | x_t).

    Examples must not mix in `log_prob`. Raises `InputError` if it returns another shape.
    """

    def slope(x_t, t):
        def total(x):
            value = log_prob(x, t)
            if jnp.shape(value) != x.shape[:1]:
                raise InputError(f"log_prob must return one number an example, {x.shape[:1]}, not {jnp.shape(value)}")
            return value.sum()

        return jax.grad(total)(x_t)

    return slope


def classifier(schedule: Schedule, log_prob: LogProb, scale: Any = 1.0) -> Transform:
    """Guidance by a classifier of noisy data, for every sampler (Dhariwal & Nichol 2021, algorithm 2), a transform.

    The paper's eps - g sigma grad log p(y | x_t) is, in x0,

        D + g (sigma^2 / alpha) grad log p(y | x_t),

    and for g = 1 and the true p(y | x_t) the conditional mean (Tweedie's formula for p(x_t | y)). Where alpha = 0
    nothing is added: x_t says nothing of y. Only the classifier is differentiated. Algorithm 1, for ancestral chains
    alone, is `processes.pushed`.

    With labels that are known when samples are drawn it becomes a guide:

        lambda denoise, cond: classifier(schedule, lambda x, t: log_prob(x, t, cond["label"]))(given(denoise, cond))

    Args:
      schedule: the process's.
      log_prob: `(x_t [B, ...], t) -> [B]`, log p(y | x_t) with y inside; t as the denoiser gets it, a scalar or [B].
      scale: g, see above.
    """
    slope = gradient(log_prob)

    def transform(denoise):
        def guided(x_t, t):
            estimate = denoise(x_t, t)
            alpha, variance = jnp.asarray(schedule.alpha(t)), schedule.sigma(t) ** 2
            reach = jnp.where(alpha > 0, variance / jnp.where(alpha > 0, alpha, 1.0), 0.0)
            push = along(_at(scale, t), x_t.shape) * expand(reach, x_t) * slope(x_t, t)
            return estimate._replace(mean=(estimate.mean + push).astype(estimate.mean.dtype))

        return guided

    return transform


# ---- Bounds of x0, and parts.


def clip(low: float = -1.0, high: float = 1.0) -> Transform:
    """Keep the estimate of x0 inside the data's range at every step, as DDPM's sampler does.

    Bridges see x0 only: the noise that DDIM carries on is then what the clipped x0 implies, which diffusers calls
    `use_clipped_model_output=True`.
    """

    def transform(denoise):
        def clipped(x_t, t):
            estimate = denoise(x_t, t)
            return estimate._replace(mean=jnp.clip(estimate.mean, low, high))

        return clipped

    return transform


def dynamic_threshold(percentile: float = 0.995, largest: float = float("inf")) -> Transform:
    """Imagen's dynamic thresholding (Saharia et al. 2022, section 2.3), for data in [-1, 1] under large scales.

    s is the `percentile` of an example's |x0|, at least 1 and at most `largest`; x0 is clipped to [-s, s] and divided
    by s. Where s = 1 that is `clip`. For pixels; latents have no such range.

    Raises:
      InputError: unless 0 < percentile <= 1 and largest >= 1.
    """
    if not 0 < percentile <= 1:
        raise InputError(f"a percentile is a share in (0, 1], not {percentile}")
    if not largest >= 1:
        raise InputError(f"the largest threshold must be at least 1, the data's own, not {largest}")

    def transform(denoise):
        def thresholded(x_t, t):
            estimate = denoise(x_t, t)
            x0 = estimate.mean
            s = jnp.quantile(jnp.abs(x0).reshape(len(x0), -1), percentile, axis=1)
            s = expand(jnp.clip(s, 1.0, largest), x0)
            return estimate._replace(mean=jnp.clip(x0, -s, s) / s)

        return thresholded

    return transform


def part(name: str, transform: Transform) -> Transform:
    """`transform` for one part of a dictionary (`processes.product`); it sees the estimate of that part alone."""

    def both(denoise):
        def transformed(x_t, t):
            estimate = denoise(x_t, t)
            return estimate | {name: transform(lambda x, t: estimate[name])(x_t[name], t)}

        return transformed

    return both


# ---- Two estimates.


def _at(scale, t):
    return scale(t) if callable(scale) else scale


def _is_estimate(node) -> bool:
    return hasattr(node, "guided")


def _guided(estimate, other, scale):
    return jax.tree.map(lambda a, b: a.guided(b, scale), estimate, other, is_leaf=_is_estimate)


def _both(denoise: ConditionalDenoiser, x_t, t, cond, null):
    """The estimates under two conditions, of one call."""

    def beside(name, conditional, unconditional):
        conditional = jnp.asarray(conditional)
        try:
            unconditional = jnp.broadcast_to(jnp.asarray(unconditional, conditional.dtype), conditional.shape)
        except ValueError:
            path, shapes = jax.tree_util.keystr(name), (conditional.shape, jnp.shape(unconditional))
            raise InputError(f"null{path} must broadcast to the condition's {shapes[0]}, not {shapes[1]}") from None
        return jnp.concatenate([conditional, unconditional])

    if jax.tree.structure(cond) != jax.tree.structure(null):  # type: ignore[operator]
        raise InputError(
            f"null(cond) must have the names of cond, {jax.tree.structure(cond)}, not {jax.tree.structure(null)}"
        )
    x_twice = jax.tree.map(lambda a: jnp.concatenate([a, a]), x_t)
    t_twice = jax.tree.map(lambda a: jnp.concatenate([a, a]) if jnp.ndim(a) else a, t)
    estimate = denoise(x_twice, t_twice, jax.tree_util.tree_map_with_path(beside, cond, null))
    return _half(estimate, 0), _half(estimate, 1)


def _half(estimate, number: int):
    """Half of an estimate's examples. What all share, a number or a single entry on the axis of examples, stays."""

    def cut(one):
        rank = max(map(jnp.ndim, jax.tree.leaves(one)))
        return jax.tree.map(lambda a: jnp.split(a, 2)[number] if jnp.ndim(a) == rank and len(a) > 1 else a, one)

    return jax.tree.map(cut, estimate, is_leaf=_is_estimate)
