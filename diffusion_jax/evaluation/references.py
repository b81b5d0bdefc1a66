"""What samples are compared with: images, and Gaussians that others fitted to features of them and published."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffusion_jax.core.errors import InputError, RunError
from diffusion_jax.data import numpy_files
from diffusion_jax.evaluation import checks, extractors, frechet, image_store, streaming
from diffusion_jax.evaluation.extractors import FEATURES, SPATIAL, Extractor
from diffusion_jax.evaluation.image_store import Images

# As pytorch-fid and EDM write them, and ADM, whose files have images as well.
PUBLISHED = {FEATURES: ("mu", "sigma"), SPATIAL: ("mu_s", "sigma_s")}


class Reference(NamedTuple):
    """What samples are compared with.

    Attributes:
      name: for a person.
      images: real ones; None where there are only Gaussians.
      gaussians: name of features -> (mean [D], covariance [D, D]), in place of what the images would give.
    """

    name: str
    images: Images | None
    gaussians: Mapping[str, tuple[np.ndarray, np.ndarray]]

    def check(self, extractor: Extractor) -> None:
        """Raise `InputError` unless the extractor's features can be compared with it."""
        if self.images is not None:
            streaming.check_shape(extractor, self.images.some(1).shape[1:])
        sizes = extractors.dimensions(extractor) if self.gaussians else {}
        for name, (mean, covariance) in self.gaussians.items():
            try:
                checks.same_size(len(mean), sizes.get(name, len(mean)))
                frechet.check_gaussian(mean, covariance)
            except (InputError, RunError) as error:
                raise InputError(f"{self.name}: {error}") from error

    def about(self) -> dict[str, Any]:
        """Its part of a protocol."""
        count = None if self.images is None else self.images.count
        return {"name": self.name, "images": count, "sha256": self._sha256()}

    def _sha256(self) -> str:
        if not self.gaussians:
            return self.images.sha256()  # type: ignore[union-attr]  # one of the two is there
        found = hashlib.sha256(b"" if self.images is None else self.images.sha256().encode())
        for name, pair in self.gaussians.items():
            for array in pair:
                found.update(f"{name} {array.dtype} {array.shape}".encode())
                found.update(np.ascontiguousarray(array).data)
        return found.hexdigest()


def of_images(images: Images) -> Reference:
    """Images alone."""
    return Reference(images.name, images, {})


def of_path(path: str | Path) -> Reference:
    """A folder or file of images (`image_store.of_path`), an .npz file with "mu" and "sigma" (`PUBLISHED`), or both.

    Raises:
      InputError: there is neither, it is damaged, or holds something else.
    """
    if Path(path).is_dir() or not numpy_files.is_archive(path):
        return of_images(image_store.of_path(path))
    members = numpy_files.names(path)
    wanted = {name: pair for name, pair in PUBLISHED.items() if set(pair) <= members}
    if not wanted:
        return of_images(image_store.of_path(path))
    found = numpy_files.arrays(path, *(name for pair in wanted.values() for name in pair))
    gaussians = {name: (found[mean], found[covariance]) for name, (mean, covariance) in wanted.items()}
    for name, (mean, covariance) in gaussians.items():
        if mean.ndim != 1 or mean.dtype.kind != "f" or covariance.shape != 2 * mean.shape:
            shapes = f"{mean.dtype} {list(mean.shape)} and {covariance.dtype} {list(covariance.shape)}"
            raise InputError(f"{path}: {' and '.join(PUBLISHED[name])} are {shapes}, not floats [D] and [D, D]")
    return Reference(str(path), image_store.of_path(path) if members & set(image_store.NAMES) else None, gaussians)
