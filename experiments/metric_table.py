"""Does each metric of diffusion_jax.evaluation put sets of digits in the order in which they should be?

  python -m experiments.metric_table --samples good=runs/guided/quality/samples.npz --samples short=FILE

Every metric, in the features of the bundled classifier, against the 1200 training digits. The sets, of equal size:

  real        test digits, which neither a model nor the classifier has seen
  good        samples of a trained model, as `experiments.digits_quality` draws and keeps them
  short       samples of one that was trained too little
  noisy       training digits plus noise of 0.3, pixels being in [-1, 1]
  noise       uniform noise
  memorised   training digits again, drawn with replacement, plus noise of 0.02
  few         the same of the first 50 training digits only

`good` and `short` are left out where they are not given, and --samples takes further sets of any name. Beside the
metrics stands `nearest`: the mean distance of pixels to the nearest training image, over that of the test digits.

Then it says which pairs each metric has the wrong way round, or cannot tell apart: pairs of quality (real before good
before short before noise; real before noisy before noise) and of memorising (real and good before memorised and few).

What to expect, `good` being 1000 images of configs/labelled.py, `short` of configs/digits.py after 1000 steps:

               FD    sFD     KID     IS  precision  recall  density  coverage  nearest
  real       1.14   0.56   -0.15   9.04      0.921   0.912     1.01     0.891     1
  good       1.25   0.79    0.18   8.78      0.869   0.859     1.03     0.855     1.03
  short      7.58   3.35   13.2    6.70      0.377   0.959     0.22     0.272     1.64
  noisy      5.73   2.54   17.8    8.77      0.848   0.915     0.62     0.733     0.90
  noise    298    115     291      2.54      0       0         0        0         3.33
  memorised  0.70   0.40   -0.27   9.21      1       0.912     1.13     0.953     0.06
  few       11.7    6.16    9.56   8.60      1       0.041     1.09     0.242     0.06

Fréchet and kernel distances and coverage have all pairs of quality right. Inception Score, precision and density see
no lack of variety, and prefer guided samples to real ones. Recall sees nothing else, and the scattered samples of a
bad model please it. That a set has few images of its own, the distances, recall and coverage see. That it recites the
whole training set no comparison with that can see, nor one with test images, for training images are real: only
`nearest`.
"""

from itertools import combinations
from pathlib import Path

import numpy as np

from diffusion_jax import evaluation
from diffusion_jax.app import cli
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import images, sources
from experiments import digits_quality

QUALITY = (("real", "good", "short", "noise"), ("real", "noisy", "noise"))  # from good to bad
HONEST, RECITED = ("real", "good"), ("memorised", "few")
NEAREST = "nearest"
COPIES = 50  # digits in `few`


def main(arguments: list[str]):
    """The command `python -m experiments.metric_table`."""
    parser = cli.parser("experiments.metric_table", __doc__)
    parser.add_argument("--samples", action="append", default=[], metavar="NAME=FILE", help="a samples.npz of digits")
    given = {}
    for option in parser.parse_args(arguments).samples:
        name, _, file = option.partition("=")
        if not name or not file:
            raise InputError(f"--samples {option}: give NAME=FILE, such as good=samples.npz")
        given[name] = digits_quality.load(Path(file))[0]
    train, test = digits("train"), digits("test")
    judged = sets(train, test, given)
    rows = table(train, test, judged)
    print(f"{len(judged['real'])} images a set, against {len(train)} training digits\n")
    print("\n".join(markdown(rows)) + "\n")
    for metric in next(iter(rows.values())):
        for what, pairs in (("quality", quality(rows)), ("memorising", memorising(rows))):
            wrong = [f"{a} / {b}" for a, b in misjudged(rows, metric, pairs)]
            if metric != NEAREST or what == "memorising":  # it says nothing of quality
                print(f"{metric}, {what}: {len(pairs) - len(wrong)} of {len(pairs)} right", *wrong, sep="; not ")


def sets(train: np.ndarray, test: np.ndarray, given: dict[str, np.ndarray], seed: int = 0) -> dict[str, np.ndarray]:
    """All that are judged, uint8 [N, 8, 8, 1], cut to the size of the smallest."""
    rng = np.random.default_rng(seed)

    def again(pictures):
        return noisy(pictures[rng.integers(len(pictures), size=len(test))], 0.02, rng)

    found = {
        "real": test,
        **given,
        "noisy": noisy(train, 0.3, rng),
        "noise": rng.integers(0, 256, test.shape, np.uint8),
        "memorised": again(train),
        "few": again(train[:COPIES]),
    }
    count = min(map(len, found.values()))
    return {name: pictures[:count] for name, pictures in found.items()}


def table(train: np.ndarray, test: np.ndarray, judged: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    """Set -> metric -> its value, in the features of the bundled classifier."""
    extractor = evaluation.digits()
    real = evaluation.extract(extractor, [train])
    rows = {}
    for name, pictures in judged.items():
        found = evaluation.extract(extractor, [pictures])
        rows[name] = {measure.name: measure.of(real, found) for measure in evaluation.MEASURES}
        rows[name][NEAREST] = evaluation.memorisation(pictures, train, test)
    return rows


def quality(rows) -> list[tuple[str, str]]:
    """Pairs of sets, the better one first."""
    pairs = [pair for order in QUALITY for pair in combinations([name for name in order if name in rows], 2)]
    return list(dict.fromkeys(pairs))


def memorising(rows) -> list[tuple[str, str]]:
    """Pairs of sets, the second recited from the training images."""
    return [(a, b) for a in HONEST for b in RECITED if a in rows]


def misjudged(rows, metric: str, pairs) -> list[tuple[str, str]]:
    """The `pairs`, better one first, that a metric has the wrong way round or sees no difference between."""
    better = {measure.name: measure.better for measure in evaluation.MEASURES}.get(metric, 1)
    return [(a, b) for a, b in pairs if not better * rows[a][metric] > better * rows[b][metric]]


def markdown(rows) -> list[str]:
    """The lines of a table, a row a set."""
    metrics = list(next(iter(rows.values())))
    lines = [["set", *metrics], ["---"] * (1 + len(metrics))]
    lines += [[name, *(f"{row[metric]:.3g}" for metric in metrics)] for name, row in rows.items()]
    return ["| " + " | ".join(line) + " |" for line in lines]


def noisy(pictures: np.ndarray, scale: float, rng) -> np.ndarray:
    """uint8 images with Gaussian noise of `scale`, pixels being in [-1, 1]."""
    return images.to_uint8(images.to_float(pictures) + scale * rng.standard_normal(pictures.shape))


def digits(split: str) -> np.ndarray:
    """All images of a split, uint8 [N, 8, 8, 1]."""
    source = sources.digits(split)
    return np.stack([source[i]["image"] for i in range(len(source))])


if __name__ == "__main__":
    cli.run(main)
