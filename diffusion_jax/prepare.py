r"""Encode images once, for diffusion models of latents: what a first stage makes of them is kept in files.

  python -m diffusion_jax.prepare --config configs/first_stage_digits.py --first-stage runs/first_stage --out latents
  python -m diffusion_jax.prepare --config configs/mnist.py --first-stage runs/kl --out kept --split train,test
  python -m diffusion_jax.prepare --config configs/folder.py --config.data.dir=PHOTOS --config.data.shape=256,256,3 \
    --first-stage stabilityai/sd-vae-ft-ema --out kept

The config says which images: its data, in the range that the first stage was trained on. Where it mirrors them
(data.flip), the mirror images are encoded too. Labels are kept where the data has some. What is kept are the means
and standard deviations of the codes, never draws, in float16: training draws anew each time.

A published first stage is a folder of diffusers, a name on the Hugging Face hub, or a file of latent diffusion's. It
takes images in [-1, 1].

OUT/train holds files of 512 images each, and latents.json, which says what they are and, at last, the mean and the
standard deviation of all latents and of each channel. Given again, the same command makes what is missing or damaged.
A folder of other latents is refused. The work is spread over all devices, and over hosts that are given the same
command and see the same folder.
"""

from diffusion_jax.core import ending

if __name__ == "__main__":
    ending.at_once()  # before the rest is imported, which takes seconds

from pathlib import Path

import jax

from diffusion_jax import config
from diffusion_jax.app import cli, cpu, encoding, hosts
from diffusion_jax.core import files
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line
from diffusion_jax.data import latents
from diffusion_jax.methods.autoencoders import opened
from diffusion_jax.training.workdir import locked


def main(arguments: list[str]):
    """The command `python -m diffusion_jax.prepare`."""
    options, overrides = _parser().parse_known_args(arguments)
    splits = _splits(options.split)
    module = config.load(options.config)
    chosen = config.override(config.defaults(module), overrides)
    hosts.join(options)
    data = module.build(chosen).data

    def plan():
        found = {split: encoding.images(data, split) for split in splits}
        stage = opened.opened(options.first_stage, "--first-stage", options.variant, options.scale)
        params, caches = stage.read(), {}
        for split, source in found.items():
            caches[split] = encoding.planned(stage, params, data, source, latents.PART)
            latents.check_free(options.out / split, caches[split])
        files.check_folder(options.out)
        return found, stage, params, caches

    found, stage, params, caches = hosts.together(plan)
    with locked(options.out, jax.process_index()):
        for split, cache in caches.items():
            path = options.out / split
            done = encoding.encode(path, cache, stage, params, data, found[split], options.batch, chosen.data.threads)
            if jax.process_index() == 0:
                line(f"{path}: {_described(done)}")


def _splits(text: str) -> list[str]:
    splits = text.split(",")
    if len(set(splits)) < len(splits) or not all(split.isidentifier() for split in splits):
        raise InputError(f"--split {text[:100]}: give names with commas between, each once, such as train,test")
    return splits


def _described(cache: latents.Cache) -> str:
    assert cache.statistics is not None
    views = " and of their mirrors" if cache.mirrored else ""
    shape = "x".join(map(str, cache.shape))
    return (
        f"latents of {cache.num} images{views}, {shape} each, of mean {cache.statistics.mean:.4g} and standard "
        f"deviation {cache.statistics.std:.4g}, in {cache.parts} files"
    )


def _parser():
    parser = cli.parser("diffusion_jax.prepare", __doc__)
    add = parser.add_argument
    add("--config", type=Path, required=True, metavar="FILE", help="a config of the images, a Python file")
    add("--first-stage", required=True, metavar="PATH", help="a trained run, or a published folder, hub name or file")
    add("--out", type=Path, required=True, metavar="DIR", help="where to write: DIR/train and the like")
    add("--split", default="train", metavar="LIST", help="of the data: train, test or train,test (%(default)s)")
    add("--batch", type=cli.whole(1), default=4, metavar="B", help="images at a time on each device (%(default)s)")
    published = parser.add_argument_group("published first stages").add_argument
    published("--variant", default="", metavar="NAME", help="of the weights, such as fp16")
    published("--scale", type=cli.real(1e-6, 1e6), metavar="S", help="of the latents, where the file does not say it")
    hosts.add_options(parser)
    return parser


if __name__ == "__main__":
    cpu.one_device_a_core()
    cli.run(main)
