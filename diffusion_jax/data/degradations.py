"""Small pictures as they come: blurred, noisy and compressed. A network that enlarges learns of them what to mend.

The BSR degradation (Zhang et al. 2021, "Designing a Practical Degradation Model for Deep Blind Image
Super-Resolution"): blur, shrinking, noise and JPEG, in an order that is drawn anew for each picture. It is here in
the light form: latent diffusion's super-resolution has weaker ranges, for the paper's spoil too much (Rombach et al.
2022, appendix). unCLIP's second upsampler has BSR (Ramesh et al. 2022); its paper does not say in which form.

A step is `(picture, rng) -> picture` of float32 [h, w, C] in [0, 1], and steps compose. Neither Zhang's model of a
camera's sensor nor the halving that at times comes first is here.
"""

import io
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from diffusion_jax.core.errors import InputError
from diffusion_jax.data import images
from diffusion_jax.diffusion.cascades import LOW

Step = Callable[[np.ndarray, np.random.Generator], np.ndarray]
Range = tuple[float, float]

REACH = 3  # deviations, where kernels are cut off: ours; the papers draw a size


class Ranges(NamedTuple):
    """How strong each step is; each value is drawn uniformly between two. By default the light form.

    Deviations and variances are those for a ratio of 4, and greater than 0.

    Attributes:
      deviation: of round kernels, in pixels. That the least is 0.1, not 0, is ours.
      variance: of oval kernels along each axis, in squared pixels. That the least is 0.01, not 0, is ours.
      before: deviation of the blur before pixels are left out, as a multiple of the ratio. The least is ours.
      further: the ratio of the first shrinking, as a multiple of the ratio, from 1 up to this.
      level: deviation of noise, of pixels in 0..255. Latent diffusion draws one of two whole numbers.
      quality: of JPEG, a whole number, 1 to 95; both ends occur.
      compressed: the probability of JPEG within the chain. At its end it is certain.
    """

    deviation: Range = (0.1, 0.7)
    variance: Range = (0.01, 2.0)
    before: Range = (0.05, 0.6)
    further: float = 2.0
    level: Range = (1.0, 2.0)
    quality: tuple[int, int] = (80, 95)
    compressed: float = 0.9


LIGHT = Ranges()


def spoiling(degrade: Step):
    """A transform (`pipeline.batches`): adds what `degrade` makes of "image", as "low_res".

    Of "image" uint8 [H, W, C], C = 1 or 3; "low_res" is uint8 [h, w, C].

    Raises:
      InputError: another number of channels, or a size that `degrade` refuses.
    """

    def transform(features: dict[str, Any], rng: np.random.Generator):
        image = features["image"]
        if image.shape[-1] not in (1, 3):
            raise InputError(f"pictures of {image.shape[-1]} channels cannot be spoiled; give 1 (grey) or 3 (RGB)")
        return features | {LOW: _to_bytes(degrade(image.astype(np.float32) / 255, rng))}

    return transform


def means(image: np.ndarray, ratio: int) -> np.ndarray:
    """uint8 [H, W, C] made small and not spoiled, uint8 [H / ratio, W / ratio, C]: the means of blocks, rounded."""
    return _from_pil(images.to_pil(image).reduce(ratio))


def bsr(ratio: int, ranges: Ranges = LIGHT) -> Step:
    """The degradation: of a picture [H, W, C] a small one, [H / ratio, W / ratio, C].

    It shrinks twice, by a ratio that is drawn and then to its size. Blur, noise and JPEG come before, between or
    after; all 60 orders are equally probable. JPEG is the last step.

    Raises:
      InputError: a ratio below 1. The step raises it for sides that are no multiples of the ratio.
    """
    if ratio < 1:
        raise InputError(f"pictures cannot be shrunk by {ratio}; give a ratio of 1 or more")
    low, high = ranges.before
    shrink = one_of(
        (0.8, shrunk((1.0, ranges.further * ratio))), (0.2, leaving_out(ratio, (low * ratio, high * ratio)))
    )
    blur = one_of((0.5, round_blur(ranges.deviation)), (0.5, oval_blur(ranges.variance)))
    noise = one_of(
        *((share, noisy(ranges.level, kind)) for share, kind in ((0.4, coloured), (0.4, grey), (0.2, mixed)))
    )
    compress = compressed(ranges.quality)
    perhaps = one_of((ranges.compressed, compress), (1 - ranges.compressed, _unchanged))

    def step(picture, rng):
        height, width, _ = picture.shape
        if height % ratio or width % ratio:
            raise InputError(f"pictures of {height}x{width} are no blocks of {ratio}x{ratio} pixels; give multiples")
        to_size = resized((height // ratio, width // ratio))
        return compress(in_any_order((blur,), (noise,), (perhaps,), (shrink, to_size))(picture, rng), rng)

    return step


# ---- Composition.


def in_any_order(*queues: Sequence[Step]) -> Step:
    """All steps of all queues: each queue keeps its order, and all orders that do so are equally probable."""
    tickets = np.repeat(np.arange(len(queues)), [len(queue) for queue in queues])

    def step(picture, rng):
        waiting = [iter(queue) for queue in queues]
        for number in rng.permutation(tickets):
            picture = next(waiting[number])(picture, rng)
        return picture

    return step


def one_of(*choices: tuple[float, Step]) -> Step:
    """One of several steps, each with its probability; they add up to 1."""
    shares, steps = zip(*choices, strict=True)
    return lambda picture, rng: steps[rng.choice(len(steps), p=shares)](picture, rng)


def _unchanged(picture, rng):
    return picture


# ---- Blur.


def kernel(size: int, covariance: np.ndarray) -> np.ndarray:
    """Weights float64 [size, size] of a Gaussian with `covariance` [2, 2] of (row, column), in squared pixels.

    w(d) is proportional to exp(-d' covariance^-1 d / 2), d from the middle, and the weights add up to 1.
    """
    place = np.arange(size) - (size - 1) / 2
    away = np.stack(np.meshgrid(place, place, indexing="ij"), -1)
    weights = np.exp(-np.einsum("ijk,kl,ijl->ij", away, np.linalg.inv(covariance), away) / 2)
    return weights / weights.sum()


def ellipse(variances: Sequence[float], angle: float) -> np.ndarray:
    """The covariance [2, 2] of two variances, along axes that are turned by `angle`, in radians."""
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    return turn @ np.diag(variances) @ turn.T


def filtered(picture: np.ndarray, weights: np.ndarray, stride: int = 1) -> np.ndarray:
    """The mean by `weights` [n, n] about the middle of each block of `stride` x `stride` pixels.

    n is `stride` or more, and both are even or both odd: then the middles meet, and nothing is shifted. Beyond the
    border the picture repeats its outermost pixels.
    """
    reach = (len(weights) - stride) // 2
    padded = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), "edge")
    height, width, channels = picture.shape
    total = np.zeros((height // stride, width // stride, channels), np.float32)
    for (i, j), weight in np.ndenumerate(weights.astype(np.float32)):
        total += weight * padded[i : i + height : stride, j : j + width : stride]
    return np.clip(total, 0, 1)


def round_blur(deviation: Range) -> Step:
    """Blur by an isotropic Gaussian."""

    def step(picture, rng):
        variance = rng.uniform(*deviation) ** 2
        return filtered(picture, _fitting(variance * np.eye(2)))

    return step


def oval_blur(variance: Range) -> Step:
    """Blur by an anisotropic Gaussian, turned by any angle."""

    def step(picture, rng):
        return filtered(picture, _fitting(ellipse(rng.uniform(*variance, 2), rng.uniform(0, math.pi))))

    return step


def _fitting(covariance, stride=1):
    """The kernel of the size that holds `REACH` deviations; blocks of `stride` pixels have its middle."""
    beyond = REACH * math.sqrt(np.linalg.eigvalsh(covariance)[-1]) - (stride - 1) / 2
    return kernel(stride + 2 * max(0, math.ceil(beyond)), covariance)


# ---- Shrinking.


def linear(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """To `shape` = (h, w): between the four nearest pixels. What is left out is not averaged, so it aliases."""
    return _between(picture, shape, Image.Resampling.BILINEAR)


def cubic(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """To `shape` = (h, w): between the sixteen nearest pixels. What is left out is not averaged, so it aliases."""
    return _between(picture, shape, Image.Resampling.BICUBIC)


def area(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """To `shape` = (h, w): the mean of the pixels that a new one covers; to enlarge, the nearest."""
    return _by_channel(picture, lambda plane: plane.resize(shape[::-1], Image.Resampling.BOX))


def resized(shape: tuple[int, int]) -> Step:
    """To `shape` = (h, w), in one of the three ways."""
    return lambda picture, rng: (linear, cubic, area)[rng.integers(3)](picture, shape)


def shrunk(ratio: Range) -> Step:
    """By a ratio, in one of the three ways; no side is less than a pixel."""

    def step(picture, rng):
        times = rng.uniform(*ratio)
        height, width, _ = picture.shape
        return resized((max(1, int(height / times)), max(1, int(width / times))))(picture, rng)

    return step


def leaving_out(ratio: int, deviation: Range) -> Step:
    """The nearest: one pixel of `ratio` x `ratio` stays, after a blur by an isotropic Gaussian."""

    def step(picture, rng):
        return filtered(picture, _fitting(rng.uniform(*deviation) ** 2 * np.eye(2), ratio), ratio)

    return step


def _between(picture, shape, kind):
    whole = (0, 0, picture.shape[1], picture.shape[0])
    return _by_channel(picture, lambda plane: plane.transform(shape[::-1], Image.Transform.EXTENT, whole, kind))


def _by_channel(picture, change):
    planes = [change(Image.fromarray(np.ascontiguousarray(plane))) for plane in np.moveaxis(picture, -1, 0)]
    return np.clip(np.stack([np.asarray(plane) for plane in planes], -1), 0, 1)


# ---- Noise and compression.


def noisy(level: Range, kind: Callable[[int, np.random.Generator], np.ndarray]) -> Step:
    """Gaussian noise: each pixel gets level e F, e ~ N(0, 1) [k] and F = `kind(channels, rng)`, [k, C]."""

    def step(picture, rng):
        factor = rng.uniform(*level) / 255 * kind(picture.shape[-1], rng)
        noise = rng.standard_normal((*picture.shape[:2], len(factor)), np.float32)
        # No product of matrices: its sums could depend on threads.
        return np.clip(picture + np.einsum("hwk,kc->hwc", noise, factor.astype(np.float32)), 0, 1)

    return step


def coloured(channels: int, rng: np.random.Generator) -> np.ndarray:
    """Each channel has its own noise."""
    return np.eye(channels)


def grey(channels: int, rng: np.random.Generator) -> np.ndarray:
    """All channels have the same."""
    return np.ones((1, channels))


def mixed(channels: int, rng: np.random.Generator) -> np.ndarray:
    """Correlated channels: covariance U' D U, U orthogonal, and D diagonal with entries uniform in [0, 1]."""
    turn, _ = np.linalg.qr(rng.standard_normal((channels, channels)))
    return np.sqrt(rng.random(channels))[:, None] * turn


def compressed(quality: tuple[int, int]) -> Step:
    """JPEG, as Pillow writes and reads it."""

    def step(picture, rng):
        file = io.BytesIO()
        images.to_pil(_to_bytes(picture)).save(file, "JPEG", quality=int(rng.integers(*quality, endpoint=True)))
        return _from_pil(Image.open(file)).astype(np.float32) / 255

    return step


def _to_bytes(picture):
    return np.round(255 * picture).astype(np.uint8)


def _from_pil(picture):
    found = np.asarray(picture)
    return found if found.ndim == 3 else found[..., None]
