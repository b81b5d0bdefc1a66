"""How good is unCLIP on captions of MNIST? What an independent classifier reads of its pictures, beside controls.

  python -m experiments.captioned_quality --workdir runs/unclip_prior
  python -m experiments.captioned_quality --workdir runs/unclip_prior --each 50 --png captions.png

The classifiers are scikit-learn's MLPClassifier((128, 64)), of digits and of thicknesses, trained on the images that
the run is trained on, shrunk to the size of the pictures that they read. FD is the Fréchet distance to the test
images in the last hidden layer of the one of digits. Of each caption --each pictures are drawn. The rows, of the
decoder's small pictures:

  the decoder   told the best of several draws of the prior
  one draw      told one draw of the prior in place of the best of several
  guidance 2    the same as the first, with guidance of the prior
  the text's    the control: told the embedding of the text in place of the prior's
  real, train   the training images, as many as there are samples

and of the pictures that super-resolution makes of those of the first row, with noise of a level on them. A last line
compares pictures of the whole pipeline that are drawn in one program, and stage by stage.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from diffusion_jax.app import cli
from diffusion_jax.core import files, resizing, rng
from diffusion_jax.core.protocols import Tree
from diffusion_jax.data import captions, images
from diffusion_jax.diffusion import stages
from diffusion_jax.diffusion.cascades import LOW
from diffusion_jax.diffusion.noising import LEVEL
from diffusion_jax.diffusion.stages import Stage
from diffusion_jax.evaluation.frechet import gaussian_distance, moments
from diffusion_jax.methods import staged, unclip
from diffusion_jax.methods.autoencoders.compose import first_rows
from diffusion_jax.methods.text_to_image import unclip_parts
from diffusion_jax.training import held, workdir
from diffusion_jax.training.experiment import Data, SampleRequest
from diffusion_jax.training.trained import parameters

CAPTIONS = len(captions.ALL)  # pictures that are drawn at a time: one of each
LEVELS = (0.0, 0.1, 0.3)  # of noise on the small pictures
COLUMNS = 10  # of the picture of pictures


def main(arguments: list[str]):
    """The command `python -m experiments.captioned_quality`."""
    options = parser_of("captioned_quality", __doc__, "unclip_prior").parse_args(arguments)
    run = Run(options.workdir)
    keys = rng.per_example(rng.root(options.seed), jnp.arange(CAPTIONS * options.each))
    rows: dict = {}
    shown = compared(run, "low_res", run.priors(), keys, rows)
    levels = {f"level {level}": run.whole(level) for level in LEVELS}
    shown |= compared(run, "image", levels, keys, rows)
    (level, listed), *_ = levels.items()
    read = {name: lambda name=name: run.captioned.params[name] for name in run.captioned.params}
    apart = stages.apart(listed, read, keys[:CAPTIONS], run.captioned.told)["image"]
    rows["apart"] = float(np.abs(shown[level][:CAPTIONS] - apart).max())
    print(f"in one program and stage by stage pictures differ by at most {rows['apart']:.1e}")
    if options.png:
        show(options.png, shown[level][:CAPTIONS])
    if options.json:
        files.write(options.json, lambda file: file.write((json.dumps(rows, indent=1) + "\n").encode()))


def show(path: Path, pictures: np.ndarray):
    """Write one picture of each caption, float [30, H, W, C]: a row of thin digits, one of medium, one of thick."""
    order = np.argsort(np.arange(CAPTIONS) % 3, kind="stable")
    images.save_png(path, images.grid(images.to_uint8(pictures[order]), columns=COLUMNS))


def compared(run: "Run", entry: str, ways: Mapping[str, Sequence[Stage]], keys: jax.Array, rows: dict) -> dict:
    """The pictures of each way, name -> float [N, H, W, C]; their figures are printed, and put into `rows`."""
    drawn = {name: run.captioned.draw(listed, [entry], keys)[entry] for name, listed in ways.items()}
    judged(run.captioned, drawn, rows)
    return drawn


def judged(run: "Captioned", drawn: Mapping[str, np.ndarray], rows: dict):
    """Print figures of pictures, name -> float [N, H, W, C], one of each caption in turn; put them into `rows`."""
    side = len(next(iter(drawn.values()))[0])
    judge = Judge(run.examples("train", side), run.examples("test", side))
    rows[f"test images of {side}x{side}"] = judge.accuracy
    print(
        "{}x{}: of test images are read {:.3f} of digits, {:.3f} of thicknesses".format(side, side, *judge.accuracy)
    )
    print(f"{'':<16}{'images':>8}{'digit':>8}{'thick':>8}{'FD':>8}")
    num = len(next(iter(drawn.values())))
    labels = np.tile(np.arange(CAPTIONS), num // CAPTIONS)
    real, known = (x[:num] for x in run.examples("train", side))
    sets = {name: (pictures, labels) for name, pictures in drawn.items()} | {"real, train": (real, known)}
    for name, (pictures, told) in sets.items():
        rows[f"{name}, {side}x{side}"] = row = judge(pictures, told)
        print(f"{name:<16}{len(pictures):>8}" + "".join(f"{x:>8.3f}" for x in row), flush=True)


class Captioned:
    """A run that draws pictures of the captions of MNIST, by stages.

    Attributes:
      params: name of a stage -> its parameters.
      told: what the first stage is told of the 30 captions.
    """

    def __init__(self, data: Data, params: Mapping[str, Tree]):
        self._data = data
        self.params = params
        ids, mask = captions.WORDS.encode(captions.ALL)
        self.told = {"ids": jnp.asarray(ids), "mask": jnp.asarray(mask)}

    def examples(self, split: str, side: int) -> tuple[np.ndarray, np.ndarray]:
        """The first 4000 images, float [N, side, side, C] in [-1, 1], and the places of their captions in `ALL`."""
        source = self._data.source(split)
        batch = first_rows(self._data, source, captions.LOOKED_AT)
        known = {tuple(ids): number for number, ids in enumerate(np.asarray(self.told["ids"]))}
        pictures = resizing.means(self._data.clean(batch)["image"], (side, side))
        return np.asarray(pictures), np.array([known[tuple(ids)] for ids in batch["ids"]])

    def draw(
        self,
        listed: Sequence[Stage],
        entries: Sequence[str],
        keys: jax.Array,
        cond: Mapping[str, np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """These entries for each of `keys`, of one caption after the other, [N, ...].

        Args:
          listed: stages.
          entries: names; what they do not need is not computed.
          keys: [N], N a multiple of the captions.
          cond: entries that are known, [N, ...]; the captions alone where it is None.
        """
        times = len(keys) // CAPTIONS
        cond = {name: np.concatenate([x] * times) for name, x in self.told.items()} if cond is None else cond
        for entry in entries:
            stages.check_gives(listed, {name: x.shape[1:] for name, x in cond.items()}, entry)

        @jax.jit
        def sample(params, keys, cond):
            known = stages.run(listed, params, keys, cond)
            return {name: known[name] for name in entries}

        parts = []
        for i in range(0, len(keys), CAPTIONS):
            rows = slice(i, i + CAPTIONS)
            parts.append(sample(self.params, keys[rows], {name: x[rows] for name, x in cond.items()}))
        return {name: np.concatenate([np.asarray(part[name]) for part in parts]) for name in parts[0]}


class Run:
    """A trained prior, and all that its run holds."""

    def __init__(self, folder: Path):
        _, self._config = workdir.open_existing(folder)
        self._pipeline, self._method = unclip.prior_pipeline(self._config)
        experiment = staged.compose(self._config, self._pipeline, self._method)
        own = parameters(folder, experiment)[1]
        self.captioned = Captioned(
            experiment.data, {unclip_parts.PRIOR: own, **held.load(folder, experiment.task.held)}
        )

    def priors(self) -> dict[str, list[Stage]]:
        """The pipelines that are compared by the decoder's pictures."""

        def of_text(cond):
            return {"embedding": (cond[unclip.TEXT] - cond["mean"]) / cond["std"]}

        vector = (self._config.clip.embedding,)
        needs = dict.fromkeys((unclip.TEXT, "mean", "std"), vector)
        once = self._pipeline._replace(wrap=lambda stage: stage)
        return {
            "the decoder": self._listed(self._pipeline),
            "one draw": self._listed(once),
            "guidance 2": self._listed(self._pipeline, guidance_scale=2.0),
            "the text's": _with(
                self._listed(self._pipeline), stages.arrays(unclip_parts.PRIOR, of_text, needs, {"embedding": vector})
            ),
        }

    def whole(self, level: float) -> list[Stage]:
        """The whole pipeline, with noise of a level on the decoder's pictures."""
        low = (*self._config.low.size, self._config.data.shape[-1])

        def chosen(cond):
            return {LEVEL: jnp.full(len(cond[LOW]), level)}

        return _with(self._listed(self._pipeline), stages.arrays("level", chosen, {LOW: low}, {LEVEL: ()}))

    def _listed(self, pipeline, **options):
        return staged.all_stages(pipeline, self._method, "ddim", SampleRequest(CAPTIONS, **options))


def _with(listed, stage):
    """`listed`, with `stage` in place of the one of its name."""
    return [stage if other.name == stage.name else other for other in listed]


class Judge:
    """Classifiers of digits and thicknesses, of images [N, H, W, C] and captions [N] to train and to test with."""

    def __init__(self, train: tuple[np.ndarray, np.ndarray], test: tuple[np.ndarray, np.ndarray], seed: int = 0):
        pictures, labels = train
        self._classifiers = [classifier(vectors(pictures), part, seed) for part in (labels // 3, labels % 3)]
        self._reference = None
        *accuracy, _ = self(*test)
        self.accuracy = tuple(accuracy)
        self._reference = moments(self._features(test[0])).gaussian()

    def __call__(self, pictures: np.ndarray, labels: np.ndarray) -> tuple[float, float, float]:
        """(the share of digits that are read, that of thicknesses, FD to the test images)."""
        x = vectors(pictures)
        read = [
            float(network.score(x, part))
            for network, part in zip(self._classifiers, (labels // 3, labels % 3), strict=True)
        ]
        features = moments(self._features(pictures)).gaussian()
        return *read, 0.0 if self._reference is None else gaussian_distance(features, self._reference)

    def _features(self, pictures: np.ndarray) -> np.ndarray:
        h, network = vectors(pictures), self._classifiers[0]
        for weights, bias in list(zip(network.coefs_, network.intercepts_, strict=True))[:-1]:
            h = np.maximum(h @ weights + bias, 0.0)
        return h


def classifier(x: np.ndarray, labels: np.ndarray, seed: int) -> MLPClassifier:
    """A perceptron, trained on vectors [N, D] and labels [N]."""
    network = MLPClassifier((128, 64), max_iter=500, random_state=seed)
    # One thread: the products are too small to share, and sums come out in one order.
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("error", ConvergenceWarning)
        return network.fit(x, labels)


def vectors(pictures: np.ndarray) -> np.ndarray:
    """What is judged: float64 [N, H W C] in [0, 1]."""
    return (np.clip(pictures, -1, 1).astype(np.float64).reshape(len(pictures), -1) + 1) / 2


def parser_of(name: str, about: str, config: str):
    """The options of an experiment `name` on runs of a config."""
    parser = cli.parser(f"experiments.{name}", about)
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help=f"a run of configs/{config}.py")
    parser.add_argument("--each", type=cli.whole(2), default=34, metavar="N", help="pictures a caption (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all draws (%(default)s)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write one picture of each caption here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    return parser


if __name__ == "__main__":
    cli.run(main)
