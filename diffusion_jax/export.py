"""Write a trained run as a folder that diffusers or transformers read, and this library.

  python -m diffusion_jax.export --workdir runs/finetuned --to finetuned
  python -m diffusion_jax.export --workdir runs/finetuned --to step_5000 --step 5000 --raw

For runs whose network is one of diffusers' own, as those of `methods.finetune` and `methods.few_step.folders` are:
the folder has the config that they started from, its scheduler or a student's, and the averaged parameters, and
`sample --pretrained` reads it. And for a CLIP of configs/clip_folder.py, whose folder has its tokenizer too.
"""

from diffusion_jax.core import ending

if __name__ == "__main__":
    ending.at_once()  # before the rest is imported, which takes seconds

from pathlib import Path

from diffusion_jax.app import cli, resolve
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.messages import line


def main(arguments: list[str]):
    """The command `python -m diffusion_jax.export`."""
    options = _parser().parse_args(arguments)
    experiment = resolve.experiment(options.workdir, options.config)
    write = experiment.export
    if write is None:
        raise InputError(
            f"the network of {options.workdir} has no layout that others read; "
            "that of methods.finetune has, and that of configs/clip_folder.py"
        )
    if options.to.exists():
        raise InputError(f"{options.to} is there already; choose another --to, or remove it")
    which = resolve.RAW if options.raw else resolve.AVERAGED
    step, params = which.read(options.workdir, experiment, options.step)
    write(params, options.to)
    line(f"{which.kind} of step {step}: {options.to}")


def _parser():
    parser = cli.parser("diffusion_jax.export", __doc__)
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="a trained run")
    add("--to", type=Path, required=True, metavar="FOLDER", help="where to write; it must not be there yet")
    add("--step", type=cli.whole(0), metavar="N", help="of which checkpoint (the newest)")
    add("--raw", action="store_true", help="the last parameters instead of their moving average")
    add("--config", type=Path, metavar="FILE", help="the run's config file, if it has moved")
    return parser


if __name__ == "__main__":
    cli.run(main)
