"""Measure a model: sample quality, likelihood, and everything that is needed to repeat the numbers.

  python -m diffusion_jax.evaluate --workdir runs/digits --num 1000 --extractor digits
  python -m diffusion_jax.evaluate --workdir runs/cifar --num 50000 --extractor pt_inception-2015-12-05-6726825d.pth
  python -m diffusion_jax.evaluate --workdir runs/digits --num 0 --likelihood bound
  python -m diffusion_jax.evaluate --workdir runs/vae --num 0 --codes --likelihood iwae --draws 500
  python -m diffusion_jax.evaluate --workdir runs/edm --num 0 --likelihood ode --tolerance 1e-4
  python -m diffusion_jax.evaluate --pretrained FOLDER --prompts captions.txt --num 30000 --reference theirs.npz ...
  python -m diffusion_jax.evaluate --images mine/ --reference theirs/ --extractor pt_inception-2015-12-05-6726825d.pth
  python -m diffusion_jax.evaluate --compare a/evaluation.json b/evaluation.json

Writes evaluation.json (metrics, and the protocol: reference and extractor with their hashes, numbers of images,
sampler, seeds, weights, versions) and report.html, one page with the samples, their nearest training images and the
bound's terms. Given again after a kill, the same command goes on from the last batch of images. Numbers compare only
within one protocol: --compare refuses others, and says what differs.

Sample quality is measured against the model's own training images, or --reference test, a folder or samples.npz, or
an .npz of mu and sigma, as pytorch-fid, EDM and ADM publish them: Fréchet distances then, and the Inception Score.
The extractor is "digits" (comes with the package), the file of the FID's Inception network, pt_inception-2015-12-05-
6726825d.pth (pretrained.inception.URL; its hash is checked), or a Python file of yours with a function extractor().
"""

from diffusion_jax.core import ending

if __name__ == "__main__":
    ending.at_once()  # before the rest is imported, which takes seconds

import argparse
import hashlib
import json
from pathlib import Path

import jax.numpy as jnp

from diffusion_jax.app import cli, cpu, held_out, resolve, sampling, told
from diffusion_jax.core import files, rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.data import images
from diffusion_jax.evaluation import (
    extractors,
    image_store,
    neighbours,
    protocol,
    quality,
    references,
    report,
    streaming,
)
from diffusion_jax.evaluation.extractors import Extractor
from diffusion_jax.evaluation.image_store import Images
from diffusion_jax.evaluation.measures import GAUSSIAN
from diffusion_jax.evaluation.references import Reference
from diffusion_jax.training.experiment import SampleRequest

SHOWN = 100  # samples in the report
CLOSEST = 20  # of them with their nearest training images


def main(arguments: list[str]):
    """The command `python -m diffusion_jax.evaluate`."""
    options = _parser().parse_args(arguments)
    if options.compare:
        return _compare(*options.compare)
    _check(options)
    experiment = resolve.experiment(options.workdir, options.config, options.chains) if options.workdir else None
    # All that can be known is refused before anything is drawn, and the least that takes time comes first.
    likelihood = held_out.likelihood(options, experiment) if options.likelihood and experiment else None
    survey = held_out.survey(options, experiment) if options.codes and experiment else None
    out, result, figures = _quality(options, experiment) if options.num else _nothing(options)
    if likelihood is not None:
        found, picture = likelihood()
        result["metrics"] |= found.pop("metrics")
        # How it was measured is protocol; what was, and its terms, are results.
        result["protocol"]["likelihood"] = found.pop("protocol")
        result["likelihood"] = found
        result["subject"] |= {"likelihood_step": found["step"], "weights": found.pop("weights")}
        figures += picture
    if survey is not None:
        found, how, step = survey()
        result["metrics"] |= found
        result["subject"] |= {"codes_step": step}
        result["protocol"]["codes"] = how
    if not result["metrics"]:
        raise InputError("nothing to measure; give --num above 0, --likelihood or --codes")
    protocol.write(out / "evaluation.json", result)
    report.write(out / "report.html", result["subject"].get("model", "images"), result, figures)
    for name, value in result["metrics"].items():
        print(f"{name:<34}{value:>12.4f}")
    line(f"{out / 'evaluation.json'}, {out / 'report.html'}")
    return None


def _check(options) -> None:
    """What options say by themselves."""
    if options.examples is not None and not (options.likelihood or options.codes):
        raise InputError(f"--examples {options.examples} is of --likelihood and --codes; give one, or leave it out")
    if options.draws is not None and not options.likelihood:
        raise InputError(f"--draws {options.draws} is of --likelihood, which is not given; leave it out")
    if options.codes and not options.workdir:
        raise InputError("--codes needs --workdir, for the examples that it is measured on")
    if options.tolerance is not None and not options.likelihood:
        raise InputError(f"--tolerance {options.tolerance:g} is of --likelihood, which is not given; leave it out")
    if options.tolerance is not None and options.steps and not options.num:
        raise InputError(f"--tolerance chooses the steps itself; leave --steps {options.steps} out, or --tolerance")
    if options.likelihood and not options.workdir:
        raise InputError("--likelihood needs --workdir, for the images and the process that it was trained with")
    if not options.num and (texts := told.names(options)):
        flags = ", ".join(f"--{name}" for name in texts)
        raise InputError(f"{flags}: of images that are drawn, and --num 0 draws none; leave it out")
    if options.images:
        given = _differing(options, "num", *vars(_add_drawing(argparse.ArgumentParser()).parse_args([])))
        if given:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
            raise InputError(f"{flags}: of drawing, and --images are there already; leave it out")
    if options.out:
        files.check_folder(options.out)


def _compare(a: str, b: str):
    first, second = protocol.read(a), protocol.read(b)
    rows = protocol.compare(first, second)
    for name, one, other in protocol.differences(first, second):
        print(f"{name:<34}{one!s:>24}{other!s:>24}")
    for name, one, other in rows:
        print(f"{name:<34}{one:>24.4f}{other:>24.4f}")


# ---- Sample quality.


def _quality(options, experiment):
    """(folder, report, figures) of the images' quality."""
    extractor = extractors.named(options.extractor)
    reference = _reference(options, experiment)
    reference.check(extractor)
    out, subject, drawn = _generated(options, experiment, extractor)
    known = reference.about()
    count = known["images"] or "published moments"
    line(f"{drawn.count} images of {drawn.name} against {count} of {reference.name}, by {extractor.name}")
    real = {GAUSSIAN.format(name): pair for name, pair in reference.gaussians.items()}
    if reference.images is not None:
        real |= quality.features(extractor, reference.images, out)
    metrics = quality.all_measures(real, quality.features(extractor, drawn, out))
    figures = [(f"The first samples of {drawn.name}", images.grid(drawn.some(SHOWN)))]
    if experiment is not None:
        found, picture = _memorisation(experiment, drawn)
        metrics |= found
        figures += picture
    result = {
        "protocol": {
            "generated": drawn.count,
            "reference": known,
            "extractor": {"name": extractor.name, "sha256": extractor.sha256},
            "metrics": sorted(metrics),
            "pixels": "uint8, as saved",
        },
        "subject": subject | {"images_sha256": drawn.sha256()},
        "metrics": metrics,
        "environment": protocol.environment(),
    }
    return out, result, figures


def _generated(options, experiment, extractor: Extractor) -> tuple[Path, dict, Images]:
    """(folder, what they are, the images): given ones, or drawn; the extractor takes them."""
    if options.images:
        found = image_store.of_path(options.images)
        streaming.check_shape(extractor, found.some(1).shape[1:])
        name = hashlib.sha256(str(Path(options.images).resolve()).encode()).hexdigest()[:8]
        out = options.out or Path("evaluations") / f"{Path(options.images).stem}_{name}"
        files.check_folder(out)
        return out, {"model": str(options.images)}, found
    if experiment is not None:
        model = resolve.trained(options.workdir, experiment, resolve.which(options), options.step)
    else:
        model = resolve.released(options)
    if model.view.images is None:
        raise InputError("this model does not draw images; sample quality is of images (--num 0 leaves it out)")
    name = resolve.sampler(model, options.sampler)
    request = SampleRequest(1, options.steps, options.eta, options.guidance, options.rescale)
    make = model.samplers[name]
    make(request)
    given = told.given(options)
    cond = model.told.get(name, model.sample_condition)(options.num, given)
    params, about, _ = model.load()
    averaged = experiment is not None and resolve.which(options) is resolve.AVERAGED
    subject = {
        "model": str(options.workdir or options.pretrained),
        "weights": about,
        "weights_sha256": protocol.digest(params),
        "sampler": name,
        "steps": options.steps or "the sampler's own",
        "eta": options.eta if options.eta is not None else "the sampler's own",
        "guidance": options.guidance if options.guidance is not None else "the model's own",
        **_differing(options, "rescale", "chains", *resolve.OF_PUBLISHED),
        "told": told.digests(given),
        "label": options.label or "all in turn",
        "seed": options.seed,
        "ema_decay": experiment.optimization.ema_decay if averaged else None,
    }
    # A folder of its own for each subject: parts of another are never taken for these.
    key = hashlib.sha256(json.dumps([subject, options.num, options.batch], sort_keys=True).encode()).hexdigest()[:8]
    root = options.workdir or Path("samples") / Path(options.pretrained).name
    out = options.out or root / "evaluations" / f"{name}_{options.num}_{key}"
    parts = image_store.Parts(out / f"images_{key}", options.num, options.batch)
    keys = rng.per_example(rng.stream(rng.root(options.seed), "sample"), jnp.arange(options.num))
    files.check_folder(parts.folder)
    missing = parts.missing()
    there = options.num - sum(min(options.batch, options.num - start) for start in missing)
    if missing and there:
        line(f"going on with {out}: {there} images are there already")
    if missing:
        parallel = sampling.spread(params, min(options.batch, options.num), options.fsdp)
        for start, some in sampling.batches(
            make, params, keys, cond, request, options.batch, missing, parallel=parallel
        ):
            pixels = model.view.images(some)
            streaming.check_shape(extractor, pixels.shape[1:])
            parts.add(start, pixels)
    return out, subject, parts.images(f"{options.workdir or options.pretrained} ({name}, {about})")


def _reference(options, experiment) -> Reference:
    name = options.reference or ("train" if experiment is not None else None)
    if name is None:
        raise InputError("no images to compare with; give --reference FOLDER, samples.npz or a file of mu and sigma")
    if name in ("train", "test"):
        if experiment is None:
            raise InputError(f"--reference {name} needs --workdir; give a folder or samples.npz")
        return references.of_images(image_store.of_source(experiment.data.source(name), f"{name} images"))
    return references.of_path(name)


def _memorisation(experiment, drawn: Images):
    """How near samples are to training images, and a picture of it; nothing where there are no test images."""
    train = image_store.of_source(experiment.data.source("train"), "train")
    few = drawn.some(1000)
    known = train.some(10_000)  # enough to see reciting; all would take hours for large sets
    closest = neighbours.nearest(few[:CLOSEST], known)
    picture = report.neighbours(few[:CLOSEST], known[closest.index])
    figures = [("Samples, and below each its nearest training image, by pixels", picture)]
    try:
        test = image_store.of_source(experiment.data.source("test"), "test").some(1000)
        return {"nearest training image": neighbours.memorisation(few, known, test)}, figures
    except InputError:
        return {}, figures


def _nothing(options):
    if not options.workdir:
        raise InputError("--num 0 leaves only the likelihood and the codes, which need --workdir")
    out = options.out or options.workdir / "evaluations" / f"likelihood{resolve.which(options).tag}"
    files.check_folder(out)
    subject = {"model": str(options.workdir)}
    return out, {"protocol": {}, "subject": subject, "metrics": {}, "environment": protocol.environment()}, []


def _parser():
    parser = cli.parser("diffusion_jax.evaluate", __doc__)
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--workdir", type=Path, metavar="DIR", help="a trained run")
    model.add_argument("--pretrained", metavar="PATH", help="a published model (see diffusion_jax.sample)")
    model.add_argument("--images", metavar="PATH", help="images that are there already: a folder, .npz or .npy")
    model.add_argument("--compare", nargs=2, metavar="FILE", help="two evaluation.json of one protocol, side by side")
    add = parser.add_argument
    add("--num", type=cli.whole(0), default=1000, metavar="N", help="images to draw; 0 for none (%(default)s)")
    add("--extractor", metavar="WHICH", help="digits, a file of Inception weights, or a Python file")
    add("--reference", metavar="WHICH", help="train, test, images, or an .npz of mu and sigma (train)")
    add("--likelihood", metavar="NAME", help="also a likelihood of held-out data: bound, ode, elbo, iwae, as it has")
    add("--examples", type=cli.whole(1), metavar="N", help="examples for the likelihood and the codes (all)")
    add(
        "--draws",
        type=cli.whole(1, 1_000_000),
        metavar="K",
        help=f"of iwae: draws of each example's code ({held_out.DRAWS})",
    )
    add("--codes", action="store_true", help="also errors of reconstruction, rates and the use of codes")
    add("--tolerance", type=cli.real(0), metavar="T", help="of ode: nats an entry, instead of steps, such as 1e-4")
    add("--out", type=Path, metavar="DIR", help="where to write (evaluations/... in the work directory)")
    return _add_drawing(parser)


def _add_drawing(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The options of how images are drawn, which have no effect on those that are there."""
    told.add_options(parser)
    resolve.add_drawing(parser)
    resolve.add_published(parser)
    return parser


def _differing(options: argparse.Namespace, *names: str) -> dict[str, str]:
    """The options among `names` that are not as they are by default."""
    default = _parser().get_default
    return {name: str(value) for name in names if (value := getattr(options, name)) != default(name)}


if __name__ == "__main__":
    cpu.one_device_a_core()
    cli.run(main)
