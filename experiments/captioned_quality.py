"""How good is unCLIP on captions of MNIST? What an independent classifier reads of its pictures, beside controls.

  python -m experiments.captioned_quality --workdir runs/unclip_prior
  python -m experiments.captioned_quality --workdir runs/unclip_prior --each 50 --png captions.png

The classifier is two of scikit-learn's MLPClassifier((128, 64)), of digits and of thicknesses, trained on the images
that the run is trained on, shrunk to 16x16. FD is the Fréchet distance to the test images in the last hidden layer of
the one of digits. Of each caption --each pictures are drawn. The rows:

  the whole     prior, decoder and super-resolution, as `sample` draws
  one draw      the same, of one draw of the prior in place of the best of several
  no guidance   the same as the whole, without guidance of the prior
  the text's    the control: the decoder is told the embedding of the text in place of the prior's
  real, train   the training images, as many as there are samples

A last line compares the pictures of the whole pipeline, drawn in one program and stage by stage.
"""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits

from diffusion_jax.app import cli
from diffusion_jax.core import files, resizing, rng
from diffusion_jax.data import captions, images
from diffusion_jax.diffusion import stages
from diffusion_jax.diffusion.stages import Stage
from diffusion_jax.evaluation.frechet import gaussian_distance, moments
from diffusion_jax.methods import staged, unclip
from diffusion_jax.methods.autoencoders.compose import first_rows
from diffusion_jax.training import held, workdir
from diffusion_jax.training.experiment import SampleRequest
from diffusion_jax.training.trained import parameters

CAPTIONS = len(captions.ALL)  # pictures that are drawn at a time: one of each
SIDE = 16  # of the pictures that are judged
COLUMNS = 10  # of the picture of pictures


def main(arguments: list[str]):
    """The command `python -m experiments.captioned_quality`."""
    options = _parser().parse_args(arguments)
    run = Run(options.workdir)
    judge = Judge(run.examples("train"), run.examples("test"))
    print("of test images are read: {:.3f} of the digits, {:.3f} of the thicknesses".format(*judge.accuracy))
    print(f"{'':<16}{'images':>8}{'digit':>8}{'thick':>8}{'FD':>8}")
    rows, drawn = {}, {}
    keys = rng.per_example(rng.root(options.seed), jnp.arange(CAPTIONS * options.each))
    for name, listed in run.ways().items():
        drawn[name] = run.draw(listed, keys)
        rows[name] = judge(drawn[name], np.tile(np.arange(CAPTIONS), options.each))
        _print(name, len(drawn[name]), rows[name])
    real, labels = (x[: len(keys)] for x in run.examples("train"))
    rows["real, train"] = judge(real, labels)
    _print("real, train", len(real), rows["real, train"])
    read = {name: lambda name=name: run.params[name] for name in run.params}
    apart = stages.apart(run.ways()["the whole"], read, keys[:CAPTIONS], run.told)["image"]
    difference = float(np.abs(drawn["the whole"][:CAPTIONS] - apart).max())
    print(f"in one program and stage by stage pictures differ by at most {difference:.1e}")
    if options.png:
        order = np.argsort(
            np.arange(CAPTIONS) % 3, kind="stable"
        )  # a row of thin digits, one of medium, one of thick
        shown = images.to_uint8(drawn["the whole"][:CAPTIONS][order])
        images.save_png(options.png, images.grid(shown, columns=COLUMNS))
    if options.json:
        report = {"accuracy": judge.accuracy, "rows": rows, "apart": difference}
        files.write(options.json, lambda file: file.write((json.dumps(report, indent=1) + "\n").encode()))


def _print(name, count, row):
    print(f"{name:<16}{count:>8}" + "".join(f"{x:>8.3f}" for x in row), flush=True)


class Run:
    """A trained prior, and all that its run holds."""

    def __init__(self, folder: Path):
        _, self._config = workdir.open_existing(folder)
        self._pipeline, self._method = unclip.prior_pipeline(self._config)
        experiment = staged.compose(self._config, self._pipeline, self._method)
        self._data = experiment.data
        own = parameters(folder, experiment)[1]
        self.params = {unclip.PRIOR: own, **held.load(folder, experiment.task.held)}
        ids, mask = captions.WORDS.encode(captions.ALL)
        self.told = {"ids": jnp.asarray(ids), "mask": jnp.asarray(mask)}

    def examples(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Images, float [N, H, W, C] in [-1, 1], and the places of their captions in `captions.ALL`, of the first
        4000."""
        source = self._data.source(split)
        batch = first_rows(self._data, source, captions.LOOKED_AT)
        known = {tuple(ids): number for number, ids in enumerate(np.asarray(self.told["ids"]))}
        return np.asarray(self._data.clean(batch)["image"]), np.array([known[tuple(ids)] for ids in batch["ids"]])

    def ways(self) -> dict[str, list[Stage]]:
        """The pipelines that are compared."""
        request = SampleRequest(CAPTIONS)
        once = self._pipeline._replace(wrap=lambda stage: stage)

        def listed(pipeline, request=request):
            return staged.all_stages(pipeline, self._method, "ddim", request)

        def of_text(cond):
            return {"embedding": (cond[unclip.TEXT] - cond["mean"]) / cond["std"]}

        vector = (self._config.clip.embedding,)
        needs = dict.fromkeys((unclip.TEXT, "mean", "std"), vector)
        control = stages.arrays(unclip.PRIOR, of_text, needs, {"embedding": vector})
        whole = listed(self._pipeline)
        return {
            "the whole": whole,
            "one draw": listed(once),
            "no guidance": listed(self._pipeline, request._replace(guidance_scale=1.0)),
            "the text's": [control if stage.name == unclip.PRIOR else stage for stage in whole],
        }

    def draw(self, listed: Sequence[Stage], keys: jax.Array) -> np.ndarray:
        """A picture of each of `keys`, of one caption after the other, float [N, H, W, C]."""
        given = {name: x.shape[1:] for name, x in self.told.items()}
        sample = jax.jit(stages.pipeline(listed, given, "image"))
        parts = [sample(self.params, keys[i : i + CAPTIONS], self.told) for i in range(0, len(keys), CAPTIONS)]
        return np.concatenate([np.asarray(part) for part in parts])


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
    """What is judged: float64 [N, 256] in [0, 1]."""
    small = resizing.means(jnp.asarray(np.clip(pictures, -1, 1)), (SIDE, SIDE))
    return (np.asarray(small, np.float64).reshape(len(pictures), -1) + 1) / 2


def _parser():
    parser = cli.parser("experiments.captioned_quality", __doc__)
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="a run of configs/unclip_prior.py")
    parser.add_argument("--each", type=cli.whole(2), default=34, metavar="N", help="pictures a caption (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of all draws (%(default)s)")
    parser.add_argument("--png", type=Path, metavar="FILE", help="write one picture of each caption here")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    return parser


if __name__ == "__main__":
    cli.run(main)
