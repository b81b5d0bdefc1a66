"""Random-access image sources: ``len(source)`` and ``source[i] -> {"image": uint8 [H, W, C], ...}``.

A source knows its images and nothing of order, batches or hosts; that is `pipeline`'s part. Anything with
``__len__`` and a thread-safe ``__getitem__`` is a source, so a project's own needs no registration.
"""

import numpy as np

from diffusion_jax.errors import InputError


class Arrays:
    """Images that are already in memory.

    Args:
      image: uint8 [N, H, W, C].
      **features: further arrays [N, ...], such as ``label``.
    """

    def __init__(self, image, **features):
        self._features = {"image": _read_only(image)} | {k: _read_only(v) for k, v in features.items()}
        lengths = {name: len(array) for name, array in self._features.items()}
        if len(set(lengths.values())) != 1:
            raise InputError(f"features have different lengths {lengths}; give one entry for each image")

    def __len__(self):
        return len(self._features["image"])

    def __getitem__(self, index):
        return {name: array[index] for name, array in self._features.items()}


def _read_only(array):
    """A view that cannot be written through: a batch may alias the source, and must not change it."""
    view = np.asarray(array).view()
    view.flags.writeable = False
    return view


_DIGITS_TRAIN = 1200


def digits(split="train"):
    """scikit-learn's handwritten digits (1797 of 8 x 8): a real data set that needs no download.

    Args:
      split: "train" (1200), "test" (597, disjoint from train) or "all".

    Returns:
      A source of {"image": uint8 [8, 8, 1] in 0..255, "label": int64 in 0..9}.
    """
    from sklearn.datasets import load_digits  # scikit-learn takes a second to import

    data = load_digits()
    # The file is ordered by writer: without a permutation the test split would be other people's hands.
    order = np.random.default_rng(0).permutation(len(data.images))
    splits = {"train": order[:_DIGITS_TRAIN], "test": order[_DIGITS_TRAIN:], "all": order}
    if split not in splits:
        raise InputError(f"digits has no split {split!r}; choose one of {', '.join(splits)}")
    chosen = splits[split]
    image = np.round(data.images[chosen] * (255 / 16)).astype(np.uint8)[..., None]
    return Arrays(image, label=data.target[chosen].astype(np.int64))
