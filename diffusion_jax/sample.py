"""Draw samples from a trained model.

  python -m diffusion_jax.sample --workdir runs/digits --num 64
  python -m diffusion_jax.sample --workdir runs/cifar --num 50000 --sampler ddim --steps 100 --eta 0
  python -m diffusion_jax.sample --workdir runs/guided --num 100 --label 3,8 --guidance 2

Writes samples.npz (of images: the array "images", uint8 [num, H, W, C]) and grid.png, with --film the way from noise
to data, film.gif and strip.png, and in condition.npz what the samples were told. Sample i depends on the seed and on
i, not on --batch or on the devices.
"""

import math
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffusion_jax import cli, files, images, rng, samplers
from diffusion_jax.config import line
from diffusion_jax.errors import InputError
from diffusion_jax.experiment import SampleRequest
from diffusion_jax.training import workdir
from diffusion_jax.training.checkpoint import Checkpoints
from diffusion_jax.training.parallel import DataParallel

FRAMES = 50  # pictures in a film


def main(arguments: list[str]):
    """The command `python -m diffusion_jax.sample`."""
    options = _parser().parse_args(arguments)
    if options.num < 1 or options.batch < 1:
        raise InputError(f"--num {options.num} and --batch {options.batch} must be at least 1")
    module, config = workdir.open_existing(options.workdir, options.config)
    experiment = module.build(config)
    if not experiment.samplers:
        raise InputError(f"{options.workdir} holds a classifier, which draws nothing; give it as --classifier")
    name = options.sampler or next(iter(experiment.samplers))
    if name not in experiment.samplers:
        raise InputError(f"no sampler {name} for this model; choose from {', '.join(experiment.samplers)}")
    make = experiment.samplers[name]
    # A request the sampler cannot meet is refused here, before anything is read or compiled.
    classifier = _classifier(options.classifier)
    request = SampleRequest(
        1, options.steps, options.eta, options.guidance, classifier=classifier and classifier.log_prob
    )
    make(request)
    cond = _told(options, experiment, classifier)
    step, params = _parameters(options.workdir, experiment, "params" if options.raw else "ema", options.step)
    out = options.out or options.workdir / "samples" / f"{name}_{step:08d}"
    keys = rng.per_example(rng.stream(jax.random.key(options.seed), "sample"), jnp.arange(options.num))

    view = experiment.view
    drawn = draw(make, params, keys, cond, request, options.batch)
    written = view.files(drawn)
    if cond:
        written |= {"condition.npz": lambda file: np.savez_compressed(file, **cond[0])}
    for file_name, save in written.items():
        files.write(out / file_name, save)
    images.save_png(out / "grid.png", view.picture(jax.tree.map(lambda x: x[: view.shown], drawn)))
    if options.film:
        few = min(options.num, view.filmed)
        frames = film(make, params, keys[:few], jax.tree.map(lambda x: x[:few], cond), request)
        pictures = [view.picture(frame) for frame in _each(frames)]
        images.save_film(out / "film.gif", pictures)
        images.save_png(out / "strip.png", view.strip(frames))
    names = ["grid.png", *written, *(["film.gif", "strip.png"] if options.film else [])]
    line(
        f"{options.num} samples ({name}, {'raw' if options.raw else 'averaged'} parameters of step {step}): "
        + ", ".join(str(out / file_name) for file_name in names)
    )


def draw(make, params, keys, cond, request, batch):
    """NumPy samples, [num, ...], in batches over all devices, with a bar that moves with the chain's steps.

    `cond` is () or (what they are told,), NumPy arrays [num, ...].
    """
    parallel = DataParallel()
    count, num = len(parallel.devices), len(keys)
    batch = math.ceil(min(batch, num) / count) * count
    drawn = []
    with tqdm(total=num, unit="sample", dynamic_ncols=True) as bar:

        def report(share):
            bar.n = min(num, int((len(drawn) + float(share)) * batch))
            bar.refresh()

        sample = parallel.sample(make(request._replace(batch=batch // count, report=report)))
        params = parallel.replicate(params)
        for start in range(0, num, batch):
            # The last batch is as large as the others, so that nothing is compiled twice; the rest is cut off.
            some = np.arange(start, start + batch) % num
            drawn.append(sample(params, keys[some], *jax.tree.map(lambda x: x[some], cond)))  # noqa: B023 (used at once)
        bar.n = num
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:num], *drawn)


def film(make, params, keys, cond, request):
    """The way of a few samples from noise to data, NumPy [F + 1, n, ...], on one device."""
    run = partial(samplers.film, frames=FRAMES)
    sample = jax.jit(make(request._replace(batch=len(keys), run=run)))
    return jax.device_get(sample(params, keys, *cond)[1])


def _parameters(folder: Path, experiment, item: str = "ema", step: int | None = None):
    """(step, parameters) of the run in `folder`."""
    template = jax.eval_shape(experiment.init, jax.random.key(0))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        return checkpoints.restore(item, template, step)


class _Classifier(NamedTuple):
    log_prob: Callable  # (x_t [B, ...], t, label [B]) -> [B]
    ask: Callable


def _classifier(folder: Path | None) -> _Classifier | None:
    """The trained classifier in the work directory `folder`."""
    if folder is None:
        return None
    module, config = workdir.open_existing(folder)
    experiment = module.build(config)
    if experiment.log_prob is None:
        raise InputError(f"{folder} holds no classifier; train one, with configs/classifier.py say")
    _, params = _parameters(folder, experiment)
    return _Classifier(partial(experiment.log_prob, params), experiment.ask)


def _told(options, experiment, classifier: _Classifier | None) -> tuple:
    """What the samples are told, () or (cond,); the label is the classifier's where there is one."""
    given = _given(options)
    if classifier is None:
        return experiment.ask(options.num, given)
    (cond,) = classifier.ask(options.num, {name: x for name, x in given.items() if name == "label"})
    rest = experiment.ask(options.num, {name: x for name, x in given.items() if name != "label"})
    return (cond | rest[0],) if rest else (cond,)


def _given(options) -> dict[str, np.ndarray]:
    """What the person tells the samples, name -> array."""
    given = {}
    if options.condition:
        try:
            with np.load(options.condition, allow_pickle=False) as file:
                given |= {name: file[name] for name in file.files}
        except (OSError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise InputError(f"cannot read {options.condition} ({error}); give an .npz file of arrays") from error
    if options.label:
        try:
            given["label"] = np.array([int(label) for label in options.label.split(",")])
        except ValueError as error:
            message = f"--label {options.label}: give whole numbers with commas between, such as 3,8"
            raise InputError(message) from error
    return given


def _each(frames):
    """The pytrees along the leading axis of one."""
    for i in range(len(jax.tree.leaves(frames)[0])):
        yield jax.tree.map(lambda x: x[i], frames)  # noqa: B023 (used at once)


def _parser():
    parser = cli.parser("diffusion_jax.sample", __doc__)
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="the trained run")
    add("--num", type=int, default=64, metavar="N", help="how many (%(default)s)")
    add("--sampler", metavar="NAME", help="one of the config's (its first: ancestral for DDPM)")
    add("--steps", type=int, metavar="N", help="steps of the chain (for DDPM all, for ddim 50)")
    add("--eta", type=float, metavar="ETA", help="ddim's noise, from 0, deterministic, to 1 (0)")
    add("--label", metavar="LIST", help="for models of labels: which, such as 3 or 3,8 (each in turn)")
    add("--condition", type=Path, metavar="FILE", help="for others: an .npz of what to tell the samples, by name")
    add("--guidance", type=float, metavar="G", help="how strongly it is followed; 1 is as learned (the config's)")
    add("--classifier", type=Path, metavar="DIR", help="a trained classifier, to guide a model that is told no label")
    add("--seed", type=int, default=0, help="of the noise (%(default)s)")
    add("--batch", type=int, default=256, metavar="B", help="drawn at a time, over all devices (%(default)s)")
    add("--film", action="store_true", help="also the way from noise to data, of the first few")
    add("--raw", action="store_true", help="the last parameters instead of their moving average")
    add("--step", type=int, metavar="N", help="which checkpoint (the newest)")
    add("--out", type=Path, metavar="DIR", help="where to write (DIR/samples/SAMPLER_STEP in the work directory)")
    add("--config", type=Path, metavar="FILE", help="the run's config file, if it has moved")
    return parser


if __name__ == "__main__":
    cli.run(main)
