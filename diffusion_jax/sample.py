"""Draw samples from a trained model, one of your own or a published one.

  python -m diffusion_jax.sample --workdir runs/digits --num 64
  python -m diffusion_jax.sample --workdir runs/cifar --num 50000 --sampler ddim --steps 100 --eta 0
  python -m diffusion_jax.sample --workdir runs/guided --num 100 --label 3,8 --guidance 2
  python -m diffusion_jax.sample --workdir runs/mine --condition thickness=0.3,0.6 --condition hints.npz
  python -m diffusion_jax.sample --workdir runs/large --condition low_res=runs/small/samples/ddim_00100000/samples.npz
  python -m diffusion_jax.sample --workdir runs/cifar --sigma-rel 0.08
  python -m diffusion_jax.sample --workdir runs/cifar --inpaint ship.png --mask left_half.png --num 16
  python -m diffusion_jax.sample --workdir runs/cifar --from ship.png --strength 0.4 --num 16
  python -m diffusion_jax.sample --workdir runs/cifar --between ship.png car.png --sampler ddim --num 8
  python -m diffusion_jax.sample --workdir runs/vae --reconstruct
  python -m diffusion_jax.sample --pretrained google/ddpm-cifar10-32 --num 16
  python -m diffusion_jax.sample --pretrained stable-diffusion-v1-5/stable-diffusion-v1-5 --prompt "a photo of a cat"
  python -m diffusion_jax.sample --pretrained 64x64_diffusion.pt --flags "--image_size 64 --class_cond True ..."

Writes samples.npz (of images: the array "images", uint8 [num, H, W, C]) and grid.png, with --film the way from noise
to data, film.gif and strip.png, in condition.npz what the samples were told, and in asked.json all that they depend
on. What differs from the default is part of the folder's name; samples that were drawn in another way are never
written over. Sample i depends on the seed and on i, and but for rounding not on --batch or on the devices. On a CPU
each core draws its share of a batch, up to 8 of them (XLA_FLAGS=--xla_force_host_platform_device_count=1 has them all
work on the same).

A published model is a folder as diffusers lays it out, a name on the Hugging Face hub, or a file of OpenAI's with the
flags that its page gives. Nothing in it is executed. Noise, parameterisation and sampler are those of its files.
"""

from diffusion_jax.core import ending

if __name__ == "__main__":
    ending.at_once()  # before the rest is imported, which takes seconds

import hashlib
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from diffusion_jax.app import cli, cpu, known, looks, loras, prompts, resolve, sampling, shown, told
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.core.protocols import ClassLogProb, SampleCondition
from diffusion_jax.training.experiment import SampleRequest


def main(arguments: list[str]):
    """The command `python -m diffusion_jax.sample`."""
    options = _parser().parse_args(arguments)
    options.num = options.num or _usual_num(options)
    if options.pretrained:
        model, experiment = resolve.released(options), None
    else:
        experiment = resolve.experiment(options.workdir, options.config, options.chains)
        model = resolve.trained(options.workdir, experiment, resolve.which(options), options.step)
    if seen := looks.asked(options):
        return looks.show(seen, options, _parser().get_default, model, experiment)
    name = resolve.sampler(model, options.sampler)
    make, entered = known.entering(options, model, model.samplers[name])
    # A request the sampler cannot meet is refused here, before anything is read or compiled.
    classifier = _classifier(options.classifier)
    request = SampleRequest(
        1,
        options.steps,
        options.eta,
        options.guidance,
        options.rescale,
        classifier=classifier and classifier.log_prob,
    )
    own = model.view.film  # of samples that are films
    make(sampling.filming(request) if options.film and own is None else request)
    model = model._replace(sample_condition=model.told.get(name, model.sample_condition))
    cond = _condition(options, model, classifier)
    params, about, folder = model.load()
    asked = _asked(options, name, about, (*entered, *cond))
    out = options.out or _beside(folder(name), options)
    sampling.check_free(out, asked)
    keys = rng.per_example(rng.stream(rng.root(options.seed), "sample"), jnp.arange(options.num))

    parallel = sampling.spread(params, min(options.batch, options.num), options.fsdp)
    drawn = sampling.draw(make, params, keys, (*entered, *cond), request, options.batch, options.quiet, parallel)
    few = keys[: model.view.filmed]
    walked = options.film and own is None
    frames = sampling.film(make, params, few, (*entered, *cond), request, parallel) if walked else None
    kept = sampling.keep(out, model.view, drawn, cond, frames, asked)
    if options.film and own is not None:
        kept.append(sampling.keep_film(out, model.view, drawn))
    line(f"{options.num} samples ({name}, {about}): {', '.join(map(str, kept))}")
    return None


def _usual_num(options) -> int:
    """As many samples as texts or pictures that they are told of, or 64."""
    return max([prompts.count(options, 0), *map(len, shown.paths(options).values())]) or 64


# What samples depend on and is not in their folder's usual name; it is added to the name where it is not the default.
NAMED = (
    "num",
    "steps",
    "eta",
    "guidance",
    "rescale",
    "label",
    "seed",
    "size",
    "variant",
    "dtype",
    "clip_skip",
    "strength",
    "tile",
    "stage",
)
FILES = ("condition", "lora", "classifier", "controlnet", "upscaler", "refiner", "chains", "first_stage")


def _asked(options, name: str, about: str, cond: tuple) -> dict:
    """All that the samples depend on, for the record beside them."""
    given = {option: getattr(options, option) for option in (*NAMED, *FILES)}
    given |= {name: value and ", ".join(value) for name in ("condition", "lora", "stage") for value in [given[name]]}
    asked = {option: value if isinstance(value, int | float) else str(value) for option, value in given.items()}
    asked |= {option: ", ".join(map(str, paths)) for option, paths in _pictures(options).items()}
    texts = {name: list(said) for name, said in prompts.given(options).items()}
    arrays = {of: np.ascontiguousarray(x) for each in cond for of, x in each.items()}
    digests = {of: hashlib.sha256(x.data).hexdigest() for of, x in arrays.items()}
    return asked | texts | {"parameters": about, "sampler": name, "told": digests}


def _beside(usual: Path, options) -> Path:
    """The usual folder, or one beside it that is named by what differs from the default."""
    usually = _parser().get_default
    given = {option: getattr(options, option) for option in (*NAMED, *FILES)}
    given["stage"] = options.stage and "_".join(options.stage)
    given["lora"] = loras.tag(options.lora)
    given["condition"] = options.condition and told.tag(options.condition)
    default = {option: usually(option) for option in given} | {"num": _usual_num(options)}
    differing = {option: value for option, value in given.items() if value != default[option]}
    files = {option: Path(value).stem for option, value in differing.items() if option in FILES[2:]}
    for option, pictures in _pictures(options).items():
        files[option] = pictures[0].stem + (f"-{len(pictures)}" if len(pictures) > 1 else "")
    tags = {"prompt": prompts.tag(options.prompt), "negative": prompts.tag(options.negative)}
    tags["prompts"] = options.prompts and options.prompts.stem
    differing |= files | {name: tag for name, tag in tags.items() if tag}
    named = [f"{option}-{value}" for option, value in differing.items()]
    return usual.with_name("_".join([usual.name, *named]))


def _pictures(options) -> dict[str, list[Path]]:
    return known.given(options) | shown.paths(options)


class _Classifier(NamedTuple):
    log_prob: ClassLogProb
    sample_condition: SampleCondition


def _classifier(folder: Path | None) -> _Classifier | None:
    """The trained classifier in the work directory `folder`."""
    if folder is None:
        return None
    experiment = resolve.experiment(folder)
    if experiment.measures.log_prob is None:
        raise InputError(f"{folder} holds no classifier; train one, with configs/classifier.py say")
    _, params = resolve.parameters(folder, experiment)
    return _Classifier(partial(experiment.measures.log_prob, params), experiment.data.sample_condition)


def _condition(options, model, classifier: _Classifier | None) -> tuple:
    """What the samples are told, () or (cond,); the label is the classifier's where there is one."""
    given = told.given(options)
    if classifier is None:
        return model.sample_condition(options.num, given)
    (cond,) = classifier.sample_condition(options.num, {name: x for name, x in given.items() if name == "label"})
    rest = model.sample_condition(options.num, {name: x for name, x in given.items() if name != "label"})
    return (cond | rest[0],) if rest else (cond,)


def _parser():
    parser = cli.parser("diffusion_jax.sample", __doc__)
    add = parser.add_argument
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--workdir", type=Path, metavar="DIR", help="a trained run")
    model.add_argument("--pretrained", metavar="PATH", help="a published model: folder, hub name or OpenAI's file")
    add("--num", type=cli.whole(1), metavar="N", help="how many (64, or one of each text or picture)")
    add("--classifier", type=Path, metavar="DIR", help="a trained classifier, to guide a model that is told no label")
    add("--film", action="store_true", help="also the way from noise to data, of the first few; sequences themselves")
    add("--quiet", action="store_true", help="no progress within a batch: its program then stays in JAX's cache")
    add("--out", type=Path, metavar="DIR", help="where to write (samples/SAMPLER_STEP in the work directory)")
    told.add_options(parser)
    known.add_options(parser)
    looks.add_options(parser)
    resolve.add_drawing(parser)
    resolve.add_published(parser)
    return parser


if __name__ == "__main__":
    cpu.one_device_a_core()
    cli.run(main)
