"""How good is a model of the digits? A Fréchet distance in a classifier's features, beside controls.

  python -m experiments.digits_quality --workdir runs/digits
  python -m experiments.digits_quality --workdir runs/digits --sampler ddim --steps 50 --json runs/digits/ddim.json
  python -m experiments.digits_quality --samples samples.npz

Each set of images is compared with the 597 *test* digits, which neither model nor classifier is trained on:

  FD       Fréchet distance between Gaussians fitted to the last hidden layer of scikit-learn's
           MLPClassifier((128, 64)), trained on the 1200 train digits with a fixed seed (98.8 % right on test).
  nearest  mean distance to the nearest training image, over that of the test images. A model that has learned
           the digits stays near 1; one that recites its training set falls towards 0. Below 0.8, distrust the FD.

What to expect, on every machine up to the classifier's rounding:

                         FD     nearest
  real, train           1.14    0         the floor: what the digits' own spread makes of these sample sizes
  real plus noise 0.3   6.50    0.90      (of pixels in [-1, 1]) visibly grainy
  Gaussian of pixels   12.1     1.52      mean and covariance of the pixels are right, nothing else is
  uniform noise       300       3.34

Samples with labels, drawn (configs/labelled.py) or told (configs/guided.py), are also shown to the classifier: how
often does it agree?

configs/digits.py says what its model gets. On two CPU cores the whole chain takes some five minutes for 1000
images, ddim with 50 steps half of one; the images drawn last stay in WORKDIR/quality.

The FD falls with the number of images in a set: compare equal --num only. It is no FID, whose network takes
photographs, and a Fréchet distance in pixels would be useless here: a Gaussian fit matches it by construction.
"""

import json
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from diffusion_jax import sample
from diffusion_jax.app import cli, cpu
from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import images, sources
from diffusion_jax.evaluation.frechet import gaussian_distance as frechet
from diffusion_jax.evaluation.frechet import moments
from diffusion_jax.evaluation.neighbours import memorisation

SHAPE = (8, 8, 1)
MEMORISED = 0.8


def main(arguments: list[str]):
    """The command `python -m experiments.digits_quality`."""
    parser = _parser()
    options = parser.parse_args(arguments)
    # Drawing takes longest and can fail on its input, so it comes first.
    file = options.samples or drawn(options)
    samples, labels = load(file)
    judge = Judge()
    print(f"classifier: {100 * judge.accuracy:.1f} % of the test digits right\n")
    print(f"{'set':<22}{'images':>7}{'FD':>9}{'nearest':>9}")
    rows = {}
    for name, pictures in {"samples": samples, **controls(judge.train)}.items():
        rows[name] = judge(pictures)
        print(f"{name:<22}{len(pictures):>7}{rows[name].distance:>9.2f}{rows[name].nearest:>9.2f}", flush=True)
    if rows["samples"].nearest < MEMORISED:
        print(f"\nthe samples lie closer to training images than {MEMORISED} of test images' distance: memorised?")
    report = {"accuracy": judge.accuracy, "rows": {name: row._asdict() for name, row in rows.items()}}
    if labels is not None:
        report["agreement"] = judge.agreement(samples, labels)
        print(f"\nthe classifier agrees with {100 * report['agreement']:.1f} % of the samples' labels")
    if options.json:
        files.write(options.json, lambda file: file.write((json.dumps(report, indent=1) + "\n").encode()))


class Quality(NamedTuple):
    """Of one set of images: how many, Fréchet distance to the test digits, relative distance to training images."""

    images: int
    distance: float
    nearest: float


class Judge:
    """The classifier and the digits it judges by. Call it with uint8 images [N, 8, 8, 1] for their `Quality`."""

    def __init__(self, seed: int = 0):
        self.train, labels = _digits("train")
        self.test, test_labels = _digits("test")
        self._classifier = classifier(self.train, labels, seed)
        self.accuracy = float(self._classifier.score(_vectors(self.test), test_labels))
        self._reference = moments(self.features(self.test)).gaussian()

    def __call__(self, pictures: np.ndarray) -> Quality:
        distance = frechet(moments(self.features(pictures)).gaussian(), self._reference)
        return Quality(len(pictures), distance, memorisation(pictures, self.train, self.test))

    def agreement(self, pictures: np.ndarray, labels: np.ndarray) -> float:
        """The share of `labels` [N] that the classifier would give to `pictures` too."""
        return float(self._classifier.score(_vectors(pictures), labels))

    def features(self, pictures: np.ndarray) -> np.ndarray:
        """The last hidden layer, float64 [N, 64]."""
        h = _vectors(pictures)
        # Copies: MLPClassifier has the hidden layers' weights, but only returns its last layer's answer.
        for weights, bias in list(zip(self._classifier.coefs_, self._classifier.intercepts_, strict=True))[:-1]:
            h = np.maximum(h @ weights + bias, 0.0)
        return h


def classifier(pictures: np.ndarray, labels: np.ndarray, seed: int = 0) -> MLPClassifier:
    """The judge's network, trained on uint8 images [N, 8, 8, 1] and labels [N]: some seconds."""
    network = MLPClassifier((128, 64), max_iter=500, random_state=seed)
    # One thread: the products are too small to share, and sums come out in one order.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("error", ConvergenceWarning)
        network.fit(_vectors(pictures), labels)
    return network


def controls(train: np.ndarray, seed: int = 0) -> dict[str, np.ndarray]:
    """Sets that the samples must be seen beside: uint8 [N, 8, 8, 1], as many of each as there are train digits."""
    rng = np.random.default_rng(seed)
    pixels = images.to_float(train).astype(np.float64)
    noisy = pixels + 0.3 * rng.standard_normal(pixels.shape)
    flat = pixels.reshape(len(pixels), -1)
    gaussian = rng.multivariate_normal(flat.mean(0), np.cov(flat, rowvar=False), len(flat))
    return {
        "real, train": train,
        "real plus noise 0.3": images.to_uint8(noisy),
        "Gaussian of pixels": images.to_uint8(gaussian.reshape(pixels.shape)),
        "uniform noise": rng.integers(0, 256, train.shape, np.uint8),
    }


def drawn(options) -> Path:
    """The file of images of the run, by `diffusion_jax.sample`; it is kept in `WORKDIR/quality`."""
    out = options.workdir / "quality"
    flags = {"workdir": options.workdir, "num": options.num, "seed": options.seed, "out": out}
    flags |= {"sampler": options.sampler, "steps": options.steps, "eta": options.eta, "guidance": options.guidance}
    sample.main([f"--{name}={value}" for name, value in flags.items() if value is not None])
    return out / "samples.npz"


def load(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """The arrays "images", uint8 [N, 8, 8, 1], and "labels", [N] or None, of the .npz file at `path`.

    Labels that samples were told, and did not draw themselves, are in the file condition.npz beside it.

    Raises:
      InputError: no such file, or another content.
    """
    try:
        with np.load(path) as file:
            pictures, labels = file["images"], file.get("labels")
    except (OSError, ValueError, KeyError, EOFError) as error:
        raise InputError(
            f"cannot read images from {path} ({error}); give a samples.npz of diffusion_jax.sample"
        ) from error
    if pictures.dtype != np.uint8 or pictures.shape[1:] != SHAPE or len(pictures) < 2:
        raise InputError(
            f"{path} holds {pictures.dtype} {list(pictures.shape)}, not uint8 [N, 8, 8, 1] with N of at least 2; "
            "this experiment judges models of configs/digits.py"
        )
    told = path.with_name("condition.npz")
    if labels is None and told.is_file():
        with np.load(told) as file:
            labels = file.get("label")
    return pictures, labels


def _digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    source = sources.digits(split)
    examples = [source[i] for i in range(len(source))]
    return np.stack([x["image"] for x in examples]), np.array([x["label"] for x in examples])


def _vectors(pictures: np.ndarray) -> np.ndarray:
    """uint8 [N, ...] -> float64 [N, D] in [-1, 1]."""
    return images.to_float(pictures).astype(np.float64).reshape(len(pictures), -1)


def _parser():
    parser = cli.parser("experiments.digits_quality", __doc__)
    judged = parser.add_mutually_exclusive_group(required=True)
    judged.add_argument("--workdir", type=Path, metavar="DIR", help="a trained run: draw from it, into DIR/quality")
    judged.add_argument("--samples", type=Path, metavar="FILE", help="a samples.npz, in place of drawing")
    add = parser.add_argument
    add("--num", type=int, default=1000, metavar="N", help="how many images to draw (%(default)s)")
    add("--sampler", metavar="NAME", help="ancestral or ddim (ancestral)")
    add("--steps", type=int, metavar="N", help="network evaluations an image (all 1000, or 50 for ddim)")
    add("--eta", type=float, metavar="ETA", help="ddim's noise, from 0 to 1 (0)")
    add("--guidance", type=float, metavar="G", help="of models of labels (the config's)")
    add("--seed", type=int, default=0, help="of the images' noise (%(default)s)")
    add("--json", type=Path, metavar="FILE", help="also write the table there")
    return parser


if __name__ == "__main__":
    cpu.one_device_a_core()
    cli.run(main)
