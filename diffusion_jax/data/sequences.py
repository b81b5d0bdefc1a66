"""Sequences made on the spot: images that move, and series whose law is known.

As in `sources`, but an example is a sequence. Sequence i is a pure function of i and a seed: it is the same in every
epoch, and whichever thread reads it.
"""

from typing import NamedTuple

import numpy as np

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Examples, Source
from diffusion_jax.data.sources import Mapped


def moving(source: Examples, length: int = 20, copies: int = 1, seed: int = 0):
    """Images that move left or right by a pixel a frame; what leaves on one side enters on the other.

    The sequence that TD-VAE's paper makes of MNIST (Gregor et al. 2019, section 5.2). Place and direction are drawn.

    Args:
      source: of {"image": uint8 [H, W, C], ...}.
      length: frames of a sequence, T.
      copies: sequences of each image.
      seed: of places and directions.

    Returns:
      A source of {"frames": uint8 [T, H, W, C], "direction": int32 [], ...}, the direction -1 for left and 1 for
      right; other features of the images are kept.

    Raises:
      InputError: `length` or `copies` is below 1.
    """
    if min(length, copies) < 1:
        raise InputError(f"{copies} sequences of {length} frames for each image; give at least 1 of each")

    def read(index):
        example = source[index % len(source)]
        image, others = example["image"], {name: x for name, x in example.items() if name != "image"}
        rng = np.random.default_rng((seed, index))
        start, direction = rng.integers(image.shape[1]), rng.choice([-1, 1])
        shifts = start + direction * np.arange(length)
        frames = np.stack([np.roll(image, shift, axis=1) for shift in shifts])
        return others | {"frames": frames, "direction": np.int32(direction)}

    return Mapped(range(copies * len(source)), read)


class LinearGaussian(NamedTuple):
    """A state z and what is seen of it, x: z_t = A z_(t-1) + N(0, Q), x_t = C z_t + N(0, R), z_0 ~ N(0, P).

    Attributes:
      transition: A, float [k, k].
      noise: Q, [k, k].
      emission: C, [d, k].
      blur: R, [d, d].
      start: P, [k, k].
    """

    transition: np.ndarray
    noise: np.ndarray
    emission: np.ndarray
    blur: np.ndarray
    start: np.ndarray


def stationary(transition: np.ndarray, noise: np.ndarray, emission: np.ndarray, blur: np.ndarray) -> LinearGaussian:
    """The model that starts from its own limit: P = A P A' + Q.

    Raises:
      InputError: there is none, for A does not shrink.
    """
    size = len(transition)
    if np.abs(np.linalg.eigvals(transition)).max() >= 1:
        raise InputError("a transition that does not shrink has no limit; give one of eigenvalues below 1")
    kron = np.eye(size**2) - np.kron(transition, transition)
    start = np.linalg.solve(kron, noise.reshape(-1)).reshape(size, size)
    return LinearGaussian(transition, noise, emission, blur, start)


def turning() -> LinearGaussian:
    """A point that turns a twelfth of a circle a step and is pulled to the middle; one coordinate is seen, blurred.

    One x does not tell which way it goes: a belief needs a memory.
    """
    angle = np.pi / 6
    turn = 0.95 * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return stationary(turn, 0.1 * np.eye(2), np.array([[1.0, 0.0]]), np.array([[0.05]]))


def series(model: LinearGaussian, num: int = 10_000, length: int = 20, seed: int = 0):
    """Series of a linear-Gaussian model.

    Args:
      model: with numbers seen at a time, d.
      num: how many series.
      length: of each, T.
      seed: another gives other series of the same law.

    Returns:
      A source of {"series": float32 [T, d]}.

    Raises:
      InputError: `num` or `length` is below 1.
    """
    if min(num, length) < 1:
        raise InputError(f"{num} series of {length} entries; give at least 1 of each")

    def draw(rng, cov, count):
        return rng.multivariate_normal(np.zeros(len(cov)), cov, count, method="cholesky")

    rng = np.random.default_rng(seed)
    z, seen = draw(rng, model.start, num), []
    for _ in range(length):
        z = z @ model.transition.T + draw(rng, model.noise, num)
        seen.append(z @ model.emission.T + draw(rng, model.blur, num))
    drawn = np.stack(seen, axis=1).astype(np.float32)
    return Mapped(range(num), lambda i: {"series": drawn[i]})


def splits(model: LinearGaussian, length: int = 20) -> Source:
    """`split -> source` of 10,000 series for training, from seed 0, and 2000 for testing, from seed 1."""

    def source(split: str):
        made = {"train": (10_000, 0), "test": (2000, 1)}
        if split not in made:
            raise InputError(f"these series have no split {split!r}; choose one of {', '.join(made)}")
        num, seed = made[split]
        return series(model, num, length, seed)

    return source


def innovations(model: LinearGaussian, x: np.ndarray) -> np.ndarray:
    """log p(x_t | x_1, ..., x_(t-1)) of series, by Kalman's filter, in nats: [N, T, d] to float64 [N, T]."""
    x = np.asarray(x, np.float64)
    mean, cov, found = np.zeros((len(x), len(model.start))), model.start, []
    for t in range(x.shape[1]):
        mean = mean @ model.transition.T
        cov = model.transition @ cov @ model.transition.T + model.noise
        wrong = x[:, t] - mean @ model.emission.T
        spread = model.emission @ cov @ model.emission.T + model.blur
        inverse = np.linalg.inv(spread)
        log_det = np.linalg.slogdet(2 * np.pi * spread)[1]
        found.append(-0.5 * (np.einsum("ni,ij,nj->n", wrong, inverse, wrong) + log_det))
        gain = cov @ model.emission.T @ inverse
        mean, cov = mean + wrong @ gain.T, cov - gain @ model.emission @ cov
    return np.stack(found, axis=1)
