"""What a network is shown, what its output means, and what it is trained to say.

A parameterisation stands between a network and a `Denoiser`: a function `(x_t, t) -> Estimate` of x0, with
parameters and conditioning already closed over. Samplers, guidance and losses see denoisers only.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core.arrays import at_least_single, expand
from diffusion_jax.core.distributions import Categorical, Gaussian, Interpolated, certain
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Apply, Check, ConditionalDenoiser, OfLevel, OfTime, Read, Scale, Target, Time
from diffusion_jax.diffusion import spans
from diffusion_jax.diffusion.gaussian import eps_from_score, score_from_eps, v_from_x0, x0_from_eps, x0_from_v
from diffusion_jax.diffusion.schedules import Schedule


def anywhere(t: Time) -> None:
    """The `check` of a network whose output says x0 at every time."""


class Parameterization(NamedTuple):
    """What a network's input and output mean, as functions of images [B, ...] and times (a scalar or [B]).

    Attributes:
      scale: `(x_t, t) -> (input, time)`, what the network is given. `time` is in the network's own unit.
      read: `(output, x_t, t) -> Estimate`, what its output says of x0.
      target: `(x0, noise, t) -> array`, what it should have said; `noise` as `Process.corrupt` returned it.
      check: `(t [N], NumPy) -> None`, or `InputError` where the output says nothing of x0. Chains ask before they
        are compiled.
    """

    scale: Scale
    read: Read
    target: Target
    check: Check = anywhere


def with_signal(schedule: Schedule, output: str) -> Check:
    """The `check` of an `output` that is divided by alpha to give x0: alpha(t) must not be 0."""

    def check(t):
        t = np.atleast_1d(t)
        silent = t[np.broadcast_to(schedule.alpha(t) == 0, t.shape)]
        if len(silent):
            raise InputError(
                f"a network that says {output} says nothing of x0 at t = {silent[0]:g}, where alpha is 0: "
                "start the grid below that, or train the network to say v or x0"
            )

    return check


def of_x(read: Read, times: int = 1) -> Read:
    """`read` of networks that answer one array of the shape of x_t, with `times` its channels; else `InputError`."""

    def checked(output, x_t, t):
        wanted = (*x_t.shape[:-1], times * x_t.shape[-1]) if times > 1 else x_t.shape
        found = jax.tree.map(jnp.shape, output)
        if found != wanted:
            raise InputError(f"the network answers {found} where {wanted} is read, for x_t of shape {x_t.shape}")
        return read(output, x_t, t)

    return checked


def gain(parameterization: Parameterization, schedule: Schedule, t: float) -> float:
    """How many times as large an error in what a network says at t is in its x0: sigma / alpha where it says eps.

    Infinite where the output says nothing of x0.
    """
    x0 = np.array([[1.0], [0.0]], np.float32)
    # At the same x_t: where x0 changes by 1 the noise changes by -alpha / sigma.
    output = parameterization.target(x0, -np.float32(schedule.alpha(t) / schedule.sigma(t)) * x0, jnp.float32(t))
    change = float(jnp.linalg.norm(output[0] - output[1]))
    return 1 / change if change else float("inf")


def thousandths(t: Time) -> jax.Array:
    """Continuous times for a network with a sinusoidal embedding: 1000 t (Song et al. 2021)."""
    return 1000 * jnp.asarray(t)


def table_index(num: int) -> OfTime:
    """Times as published DDPM weights expect them: t = i / num becomes i - 1 in 0, ..., num - 1 (float32)."""
    return lambda t: jnp.rint(jnp.asarray(t) * num) - 1


def angle(schedule: Schedule) -> OfTime:
    """Times as progressive distillation's networks expect them: 1000 arctan(sigma / alpha) / (pi / 2), whatever the
    schedule; 0 is clean data, 1000 pure noise (Salimans & Ho 2022).
    """
    return lambda t: 1000 * jnp.arctan2(schedule.sigma(t), schedule.alpha(t)) / (jnp.pi / 2)


def eps(schedule: Schedule, time: OfTime) -> Parameterization:
    """The network predicts the noise (DDPM section 3.2). `time` maps t to the network's time."""
    return Parameterization(
        scale=lambda x_t, t: (x_t, time(t)),
        read=of_x(lambda output, x_t, t: Gaussian(x0_from_eps(schedule, x_t, output, t))),
        target=lambda x0, noise, t: noise,
        check=with_signal(schedule, "eps"),
    )


def x0(time: OfTime) -> Parameterization:
    """The network predicts the clean image, whatever the process."""
    return Parameterization(
        scale=lambda x_t, t: (x_t, time(t)),
        read=of_x(lambda output, x_t, t: Gaussian(output)),
        target=lambda x0, noise, t: x0,
    )


def v(schedule: Schedule, time: OfTime) -> Parameterization:
    """The network predicts v = alpha eps - sigma x0 (Salimans & Ho 2022)."""
    return Parameterization(
        scale=lambda x_t, t: (x_t, time(t)),
        read=of_x(lambda output, x_t, t: Gaussian(x0_from_v(schedule, x_t, output, t))),
        target=lambda x0, noise, t: v_from_x0(schedule, x0, noise, t),
    )


def x0_and_eps(schedule: Schedule, time: OfTime) -> Parameterization:
    """The network predicts the clean image and the noise, in twice the channels of x_t, x0 first.

    The estimate is (sigma^2 x0 + alpha (x_t - sigma eps)) / (alpha^2 + sigma^2): each is believed where it is sure,
    and nothing is divided by alpha (Salimans & Ho 2022, section 4; there alpha^2 + sigma^2 = 1).
    """

    def read(output, x_t, t):
        x0, eps = jnp.split(output, 2, axis=-1)
        alpha, sigma = expand(schedule.alpha(t), x_t), expand(schedule.sigma(t), x_t)
        return Gaussian((sigma**2 * x0 + alpha * (x_t - sigma * eps)) / (alpha**2 + sigma**2))

    return Parameterization(
        scale=lambda x_t, t: (x_t, time(t)),
        read=of_x(read, times=2),
        target=lambda x0, noise, t: jnp.concatenate([x0, noise], axis=-1),
    )


def score(schedule: Schedule, time: OfTime) -> Parameterization:
    """The network predicts grad log q(x_t) (Song et al. 2021)."""
    return Parameterization(
        scale=lambda x_t, t: (x_t, time(t)),
        read=of_x(
            lambda output, x_t, t: Gaussian(x0_from_eps(schedule, x_t, eps_from_score(schedule, output, t), t))
        ),
        target=lambda x0, noise, t: score_from_eps(schedule, noise, t),
        check=with_signal(schedule, "the score"),
    )


def velocity(schedule: Schedule, time: OfTime) -> Parameterization:
    """The network predicts eps - x0, the velocity of the straight line (flow matching, Lipman et al. 2023).

    For `schedules.flow` and its shifts, where alpha + sigma = 1: x0 = x_t - sigma u.
    """
    return Parameterization(
        scale=lambda x_t, t: (x_t, time(t)),
        read=of_x(lambda output, x_t, t: Gaussian(x_t - expand(schedule.sigma(t), x_t) * output)),
        target=lambda x0, noise, t: noise - x0,
    )


def quarter_log(level: jax.Array) -> jax.Array:
    """A noise level as NVlabs' EDM networks, and consistency models' of JAX, are told it: log(level) / 4."""
    return jnp.log(level) / 4


def log_250(level: jax.Array) -> jax.Array:
    """A noise level as consistency models' published U-Nets are told it: 250 log(level). No unit of `quarter_log`'s:
    a network knows one of the two."""
    return 250 * jnp.log(level)


def edm(schedule: Schedule, sigma_data: float = 0.5, time: OfLevel = quarter_log) -> Parameterization:
    """Karras et al. 2022, table 1: input, output and target of unit variance at every noise level.

    With sigma the noise level sigma(t) / alpha(t) and x = x_t / alpha(t), the estimate is c_skip x + c_out F(c_in x,
    time(sigma)). A plain squared error on F is the paper's loss with its weight 1 / c_out^2. t > 0.

    Args:
      schedule: of the noise.
      sigma_data: standard deviation of the data.
      time: `level -> the network's time`: `quarter_log`, the paper's, or `log_250`.
    """

    def levels(x, t):
        alpha, sigma = expand(schedule.alpha(t), x), expand(schedule.sigma(t), x)
        return alpha, sigma / alpha

    def skip_and_out(sigma):
        variance = sigma**2 + sigma_data**2
        return sigma_data**2 / variance, sigma * sigma_data / jnp.sqrt(variance)

    def scale(x_t, t):
        alpha, sigma = levels(x_t, t)
        ratio = schedule.sigma(t) / schedule.alpha(t)
        return x_t / alpha / jnp.sqrt(sigma**2 + sigma_data**2), time(ratio)

    def read(output, x_t, t):
        alpha, sigma = levels(x_t, t)
        c_skip, c_out = skip_and_out(sigma)
        return Gaussian(c_skip * x_t / alpha + c_out * output)

    def target(x0, noise, t):
        _, sigma = levels(x0, t)
        c_skip, c_out = skip_and_out(sigma)
        return (x0 - c_skip * (x0 + sigma * noise)) / c_out

    return Parameterization(scale, of_x(read), target, with_signal(schedule, "EDM's F"))


def consistency(
    schedule: Schedule,
    sigma_data: float = 0.5,
    sigma_min: float = 0.002,
    time: OfLevel = quarter_log,
) -> Parameterization:
    """Consistency models (Song et al. 2023, appendix C): `edm`, but x0 = x_t at the level sigma_min, to the bit.

    With s^2 = sigma_min^2 + (sigma / alpha)^2 the level of the noise, the estimate is c_skip x + c_out F, with
    c_skip = sigma_data^2 / ((s - sigma_min)^2 + sigma_data^2) and c_out = sigma_data (s - sigma_min) /
    sqrt(s^2 + sigma_data^2). The network is given x / sqrt(s^2 + sigma_data^2) and `time(s)`. alpha = 1.

    Args:
      schedule: of the noise that is added to what lies at sigma_min (`few_step.consistency.renoising`).
      sigma_data: standard deviation of the data.
      sigma_min: the level of time 0, where the estimate is what is given.
      time: `level -> the network's time`: `quarter_log` or `log_250`.
    """

    def level(t):
        return jnp.sqrt(sigma_min**2 + (schedule.sigma(t) / schedule.alpha(t)) ** 2)

    def skip_and_out(t, x):
        s = level(t)
        # s - sigma_min, which is 0 to the bit at time 0.
        above = (schedule.sigma(t) / schedule.alpha(t)) ** 2 / (s + sigma_min)
        skip = 1 / (1 + (above / sigma_data) ** 2)
        return expand(skip, x), expand(above * sigma_data / jnp.sqrt(s**2 + sigma_data**2), x)

    def scale(x_t, t):
        return x_t / jnp.sqrt(expand(level(t), x_t) ** 2 + sigma_data**2), time(level(t))

    def read(output, x_t, t):
        skip, out = skip_and_out(t, x_t)
        return Gaussian(skip * x_t + out * output)

    def target(x0, noise, t):
        skip, out = skip_and_out(t, x0)
        return (x0 - skip * (x0 + expand(schedule.sigma(t), x0) * noise)) / out

    return Parameterization(scale, of_x(read), target)


def identity_at_zero(base: Parameterization) -> Parameterization:
    """`base`, but at t = 0 the estimate is x_t, whatever the network says there; it is not asked for t = 0."""

    def positive(t):
        return jnp.where(jnp.asarray(t) > 0, t, 1.0)

    def read(output, x_t, t):
        estimate = base.read(output, x_t, positive(t))
        return estimate._replace(mean=jnp.where(expand(jnp.asarray(t) > 0, x_t), estimate.mean, x_t))

    return base._replace(scale=lambda x_t, t: base.scale(x_t, positive(t)), read=read)


def logits(time: OfTime, vocab: int | None = None) -> Parameterization:
    """The network gives the logits of x0, [B, ..., K] (D3PM, Austin et al. 2021, section 3.3).

    Where K is given as `vocab`, a network that answers something else is an `InputError`.
    """

    def read(output, x_t, t):
        if vocab is not None and jnp.shape(output) != (*x_t.shape, vocab):
            raise InputError(f"the network answers {jnp.shape(output)} where logits {(*x_t.shape, vocab)} are read")
        return Categorical(output)

    return Parameterization(
        scale=lambda x_t, t: (x_t, time(t)),
        read=read,
        target=lambda x0, noise, t: x0,
    )


def substitution(mask: int, time: OfTime) -> Parameterization:
    """Logits of x0 under masks: `mask` is never predicted, and revealed tokens are kept.

    MDLM's SUBS (Sahoo et al. 2024): zero masking probabilities and carry-over unmasking.
    """

    def read(output, x_t, t):
        unmasked = output.at[..., mask].set(-jnp.inf)
        return Categorical(jnp.where((x_t == mask)[..., None], unmasked, certain(x_t, output.shape[-1]).logits))

    return logits(time)._replace(read=read)


def learned_range(base: Parameterization, schedule: Schedule, narrowest: float) -> Parameterization:
    """`base` with a learned variance, between DDPM's two (Improved DDPM, Nichol & Dhariwal 2021, equation 15).

    The output has twice the channels of x_t: what `base` reads, and v, whose (v + 1) / 2 is the fraction of the way
    from log posterior variance to log beta. The target is that of `base`, for the first half.

    Args:
      base: a parameterisation of the mean.
      schedule: the process's, variance preserving.
      narrowest: floor of the posterior variance, which is 0 in the step to s = 0; the official code takes that of
        the second step (`gaussian.q_posterior` from 2 / T to 1 / T).
    """

    def read(output, x_t, t):
        mean, v = jnp.split(output, 2, axis=-1)
        widest = expand(schedule.sigma(t), x_t) ** 2
        return Interpolated(base.read(mean, x_t, t).mean, (v + 1) / 2, widest, narrowest)

    return base._replace(read=of_x(read, times=2))


def joint(time: OfTime, **parts: Parameterization) -> Parameterization:
    """A dictionary of parameterisations, for `processes.product`; `time` maps t to the time of the one network."""

    def scale(x_t, t):
        return {name: part.scale(x_t[name], t)[0] for name, part in parts.items()}, time(t)

    def read(output, x_t, t):
        return {name: part.read(output[name], x_t[name], t) for name, part in parts.items()}

    def target(x0, noise, t):
        return {name: part.target(x0[name], noise[name], t) for name, part in parts.items()}

    def check(t):
        for part in parts.values():
            part.check(t)

    return Parameterization(scale, read, target, check)


def self_conditioned(base: Parameterization) -> Parameterization:
    """`base` for states of `processes.self_conditioned`: beside x_t the network sees what it said last."""

    def scale(state, t):
        x, time = base.scale(state["x"], t)
        return jnp.concatenate([x, state["estimate"]], axis=-1), time

    return base._replace(scale=scale, read=lambda output, state, t: base.read(output, state["x"], t))


def flow_map(base: Parameterization, interval: OfTime) -> Parameterization:
    """`base` for a network that is told a span: where it is, t, and how far it is asked to go, t - s.

    What `base` reads as x0 is then the x0 of that step (`spans.Span`). Of `velocity` it is the average velocity u:
    x_s = x_t - (t - s) u(x_t, t, s) (MeanFlow, Geng et al. 2025, equation 12). Times in place of spans are spans of
    no length, so that every sampler, guide and likelihood takes the same network.

    Args:
      base: a parameterisation for times.
      interval: maps t - s to the network's unit; the network is given (time, interval) for a time
        (`models.two_times`).
    """

    def scale(x_t, t):
        span = spans.of(t)
        network_input, time = base.scale(x_t, span.t)
        return network_input, (time, interval(span.length))

    return Parameterization(
        scale,
        read=lambda output, x_t, t: base.read(output, x_t, spans.of(t).t),
        target=lambda x0, noise, t: base.target(x0, noise, spans.of(t).t),
        check=base.check,
    )


def denoiser(apply: Apply, parameterization: Parameterization) -> ConditionalDenoiser:
    """The denoiser `(x_t [B, ...], t scalar or [B], *cond) -> Estimate` of a network `apply(input, time [B], *cond)`.

    The network's time may be a tree of arrays [B], where the parameterisation makes one (`flow_map`). `cond` is
    nothing, or a dictionary of conditions. Samplers take denoisers without it (`guidance.conditioned`).
    """

    def denoise(x_t, t, *cond):
        network_input, time = parameterization.scale(x_t, t)
        batch = jax.tree.leaves(x_t)[0].shape[:1]
        time = jax.tree.map(lambda each: jnp.broadcast_to(each, batch), time)
        output = apply(network_input, time, *cond)
        # Estimates are subtracted from one another, which half precision is too coarse for.
        return parameterization.read(at_least_single(output), x_t, t)

    return denoise
