"""Draw samples from a trained model.

  python -m diffusion_jax.sample --workdir runs/digits --num 64
  python -m diffusion_jax.sample --workdir runs/cifar --num 50000 --sampler ddim --steps 100 --eta 0

Writes samples.npz (of images: the array "images", uint8 [num, H, W, C]) and grid.png, and with --film the way from
noise to data: film.gif and strip.png. Sample i depends on the seed and on i, not on --batch or on the devices.
"""

import math
from functools import partial
from pathlib import Path

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
    name = options.sampler or next(iter(experiment.samplers))
    if name not in experiment.samplers:
        raise InputError(f"no sampler {name} for this model; choose from {', '.join(experiment.samplers)}")
    make = experiment.samplers[name]
    # A request the sampler cannot meet is refused here, before anything is read or compiled.
    make(SampleRequest(1, options.steps, options.eta))
    template = jax.eval_shape(experiment.init, jax.random.key(0))
    with Checkpoints(options.workdir / "checkpoints") as checkpoints:
        step, params = checkpoints.restore("params" if options.raw else "ema", template, options.step)
    out = options.out or options.workdir / "samples" / f"{name}_{step:08d}"
    keys = rng.per_example(rng.stream(jax.random.key(options.seed), "sample"), jnp.arange(options.num))

    view = experiment.view
    drawn = draw(make, params, keys, options)
    written = view.files(drawn)
    for file_name, save in written.items():
        files.write(out / file_name, save)
    images.save_png(out / "grid.png", view.picture(jax.tree.map(lambda x: x[: view.shown], drawn)))
    if options.film:
        frames = film(make, params, keys[: view.filmed], options)
        pictures = [view.picture(frame) for frame in _each(frames)]
        images.save_film(out / "film.gif", pictures)
        images.save_png(out / "strip.png", view.strip(frames))
    names = ["grid.png", *written, *(["film.gif", "strip.png"] if options.film else [])]
    line(
        f"{options.num} samples ({name}, {'raw' if options.raw else 'averaged'} parameters of step {step}): "
        + ", ".join(str(out / file_name) for file_name in names)
    )


def draw(make, params, keys, options):
    """NumPy samples, [num, ...], in batches over all devices, with a bar that moves with the chain's steps."""
    parallel = DataParallel()
    count, num = len(parallel.devices), len(keys)
    batch = math.ceil(min(options.batch, num) / count) * count
    drawn = []
    with tqdm(total=num, unit="sample", dynamic_ncols=True) as bar:

        def report(share):
            bar.n = min(num, int((len(drawn) + float(share)) * batch))
            bar.refresh()

        request = SampleRequest(batch // count, options.steps, options.eta, report=report)
        sample = parallel.sample(make(request))
        params = parallel.replicate(params)
        for start in range(0, num, batch):
            # The last batch is as large as the others, so that nothing is compiled twice; the rest is cut off.
            some = keys[jnp.arange(start, start + batch) % num]
            drawn.append(sample(params, some))
        bar.n = num
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:num], *drawn)


def film(make, params, keys, options):
    """The way of a few samples from noise to data, NumPy [F + 1, n, ...], on one device."""
    run = partial(samplers.film, frames=FRAMES)
    sample = jax.jit(make(SampleRequest(len(keys), options.steps, options.eta, run=run)))
    return jax.device_get(sample(params, keys)[1])


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
