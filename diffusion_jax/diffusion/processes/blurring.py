"""Blur and noise together, frequency by frequency: Blurring Diffusion Models (Hoogeboom & Salimans 2022).

With V^T the orthonormal cosine transform of an image, its coefficients u = V^T x are destroyed apart from each other,

    u_t = alpha_t u_0 + sigma_t eps,    alpha_t = a_t d_t,    d_t = (1 - d_min) exp(-lambda tau_t) + d_min,

where a_t and sigma_t are a schedule's, lambda is how fast heat takes a frequency away, and tau_t = width(t)^2 / 2 for
how long it has spread (section 4). That is Gaussian diffusion with an alpha for each frequency, and so is its bridge.
V is orthonormal: white noise stays white, so eps is drawn and predicted in pixels.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from diffusion_jax.core import rng
from diffusion_jax.core.arrays import namespace
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import OfTime, Refresh
from diffusion_jax.diffusion.gaussian import refreshed
from diffusion_jax.diffusion.parameterizations import Parameterization, with_signal
from diffusion_jax.diffusion.processes.core import Process, check_interval
from diffusion_jax.diffusion.processes.gaussian import Coefficients, coefficients
from diffusion_jax.diffusion.processes.heat import cosine_basis, dissipation_rates
from diffusion_jax.diffusion.schedules import Schedule


class Spectral(NamedTuple):
    """Images whose cosine coefficients are independent and normal.

    Attributes:
      spectrum: `Gaussian` of the coefficients [..., H, W, C], frequency (0, 0) first. KL divergences of images are
        those of their spectra, summed.
    """

    spectrum: Gaussian

    @property
    def mean(self):
        """The mean in pixels, [..., H, W, C]."""
        return to_pixels(self.spectrum.mean)

    def sample(self, key: jax.Array) -> jax.Array:
        """One image, or one batch of them, in pixels."""
        return to_pixels(self.spectrum.sample(key))

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Log density of each coefficient of the pixels `x`, in nats; they sum to the image's. Variances > 0."""
        return self.spectrum.log_prob(to_spectrum(x))


def sin_squared(widest: float = 20.0) -> OfTime:
    """Blur of widest sin^2(pi t / 2) pixels at time t, the paper's schedule (section 4)."""
    return lambda t: widest * namespace(t).sin(np.pi / 2 * t) ** 2


def frequencies(shape: Sequence[int], schedule: Schedule, width: OfTime, floor: float = 0.001) -> Schedule:
    """The schedule of every cosine coefficient, for times [..., 1, 1, 1]: alpha is [..., H, W, 1].

    Arguments as of `blurring`; `InputError` unless 0 < floor <= 1.
    """
    if not 0 < floor <= 1:
        raise InputError(f"floor must lie in (0, 1], not {floor}: detail that is gone entirely cannot come back")
    rates = dissipation_rates(*shape[:2])[..., None]

    def alpha(t):
        return schedule.alpha(t) * ((1 - floor) * namespace(t).exp(-rates * width(t) ** 2 / 2) + floor)

    return Schedule(alpha, schedule.sigma)


def blurring(
    shape: Sequence[int], schedule: Schedule, width: OfTime, floor: float = 0.001, refresh: Refresh = refreshed
) -> Process:
    """Blurring diffusion: x_t = V (alpha_t V^T x0) + sigma_t eps, `processes.gaussian` for each frequency.

    With `refreshed` (the default) the bridge is the exact posterior q(x_s | x_t, x0), the paper's; `processes.ddim`
    and `processes.renoise` are the others. Its kernel is `Spectral`, and at s = 0 the estimate, a `Gaussian`. Where
    that has one variance for all pixels, it is carried along exactly; of any other, each coefficient gets its share
    and no covariance. Over a grid of N steps the bridge holds 3 N H W numbers.

    Args:
      shape: (H, W, C) of the images; `corrupt` raises `InputError` for others.
      schedule: a_t and sigma_t; the paper's is `schedules.cosine`.
      width: `t -> standard deviation of the blur in pixels`, width(0) = 0, rising; `sin_squared`, `heat.log_spaced`.
      floor: d_min, what the blur leaves of the finest detail, in (0, 1] (`InputError`).
      refresh: the share of fresh noise, see `processes.gaussian`.

    The prior at t is the marginal of white images with unit variance.
    """
    spectral = frequencies(shape, schedule, width, floor)

    def corrupt(key, x0, t):
        if x0.shape != tuple(shape):
            raise InputError(f"this process blurs images {tuple(shape)}, not {x0.shape}")
        t = _axes(t)
        eps = rng.flat(jax.random.normal, key, x0.shape, x0.dtype)
        x_t = to_pixels(spectral.alpha(t) * to_spectrum(x0)) + spectral.sigma(t) * eps
        return x_t.astype(x0.dtype), eps

    def bridge(t, s):
        check_interval(t, s)
        return Partial(_correct, coefficients(spectral, refresh, _axes(t), _axes(s)))

    def prior(key, shape, t=1.0):
        scale = np.hypot(spectral.alpha(_axes(t)), spectral.sigma(_axes(t)))
        return to_pixels(scale * rng.flat(jax.random.normal, key, shape))

    return Process(corrupt, bridge, prior)


def eps_in_pixels(
    shape: Sequence[int], schedule: Schedule, width: OfTime, time: OfTime, floor: float = 0.001
) -> Parameterization:
    """The network predicts the noise, in pixels: x0 = V ((V^T x_t - sigma V^T eps) / alpha), where alpha_t > 0.

    Arguments as of `blurring`; `time` maps t to the network's time.
    """
    spectral = frequencies(shape, schedule, width, floor)

    def read(output, x_t, t):
        t = _axes(t)
        return Gaussian(to_pixels(to_spectrum(x_t - spectral.sigma(t) * output) / spectral.alpha(t)))

    return Parameterization(
        scale=lambda x_t, t: (x_t, time(t)),
        read=read,
        target=lambda x0, noise, t: noise,
        check=with_signal(schedule, "eps"),
    )


def to_spectrum(x: jax.Array) -> jax.Array:
    """V^T x: the orthonormal cosine coefficients of the images `x` [..., H, W, C]."""
    return _separable(cosine_basis(x.shape[-3]), cosine_basis(x.shape[-2]), x)


def to_pixels(u: jax.Array) -> jax.Array:
    """V u: the images [..., H, W, C] whose cosine coefficients are `u`."""
    return _separable(cosine_basis(u.shape[-3]).T, cosine_basis(u.shape[-2]).T, u)


def _correct(coefficient: Coefficients, estimate: Gaussian, x_t) -> Spectral:
    mean = coefficient.x_t * to_spectrum(x_t) + coefficient.x0 * to_spectrum(estimate.mean)
    # The diagonal of V^T diag(var) V.
    rows, columns = cosine_basis(x_t.shape[-3]) ** 2, cosine_basis(x_t.shape[-2]) ** 2
    unknown = _separable(rows, columns, jnp.broadcast_to(jnp.asarray(estimate.var, x_t.dtype), x_t.shape))
    var = coefficient.var + coefficient.x0**2 * unknown
    return Spectral(Gaussian(mean.astype(x_t.dtype), var.astype(x_t.dtype)))


def _separable(rows, columns, x):
    # In full precision: some accelerators would round the images to 10 bits, at every step.
    rows, columns = jnp.asarray(rows, x.dtype), jnp.asarray(columns, x.dtype)
    return jnp.einsum("nh,mw,...hwc->...nmc", rows, columns, x, precision="highest")


def _axes(t):
    """Times [...] as [..., 1, 1, 1], to stand before images."""
    return namespace(t).asarray(t, float)[..., None, None, None]
