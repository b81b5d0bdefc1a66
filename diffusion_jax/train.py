r"""Train a diffusion model, or go on training it.

  python -m diffusion_jax.train --config configs/digits.py --workdir runs/digits
  python -m diffusion_jax.train --config configs/cifar.py --workdir runs/cifar --config.train.batch_size=64

  python -m diffusion_jax.train --config configs/cifar.py --from runs/cifar@400000 --workdir runs/cifar_slower \
    --config.train.learning_rate=1e-4

The work directory holds checkpoints, metrics (metrics.jsonl, TensorBoard) and sample grids. Given again, the
same command goes on from the newest checkpoint, exactly as if it had never stopped. It trains on all devices
that JAX sees. Every value in the config file can be overridden as --config.SECTION.NAME=VALUE.
"""

from diffusion_jax.core import ending
from diffusion_jax.core.messages import line

if __name__ == "__main__":
    ending.at_once()  # before the rest is imported, which takes seconds

import argparse
import shlex
from pathlib import Path

import jax

from diffusion_jax import config
from diffusion_jax.app import cli, cpu, hosts
from diffusion_jax.app.observers import observers
from diffusion_jax.config import values
from diffusion_jax.core.errors import InputError
from diffusion_jax.training import fork
from diffusion_jax.training.loop import fit


def main(arguments: list[str]):
    """The command `python -m diffusion_jax.train`."""
    parser = _parser()
    if {"-h", "--help"} & set(arguments):
        parser.epilog = _values(arguments)
    options, overrides = parser.parse_known_args(arguments)
    if options.fresh_optimizer and not options.parent:
        raise InputError("--fresh-optimizer is of a fork; give it with --from DIR")
    module = config.load(options.config)
    chosen = config.override(config.defaults(module), overrides)
    hosts.join(options)
    parent = fork.named(options.parent, options.fresh_optimizer, options.workdir) if options.parent else None
    watched, read = values.watched(chosen)
    experiment = module.build(watched)
    # Where the end of training is a part of the experiment, as of a rate that decays until then, it is not free.
    fixed = read & {"train.steps"}
    fit(
        experiment,
        chosen,
        options.workdir,
        config_file=options.config,
        parent=parent,
        fixed=fixed,
        **observers(module, chosen, options.workdir),
    )
    if jax.process_index() == 0 and experiment.sampling.samplers:
        workdir = shlex.quote(str(options.workdir))
        line(f"draw from it with: python -m diffusion_jax.sample --workdir {workdir}")


def _values(arguments: list[str]) -> str:
    """What `--help` says of the values of the config that is given with it."""
    only = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    only.add_argument("--config")
    file = only.parse_known_args(arguments)[0].config
    if file is None:
        return "With --config FILE, --help also lists the values of that config; docs/measured/configs.md has all."
    listing = values.listing(config.defaults(config.load(file)))
    return f"values of {file}, each overridden as --config.KEY=VALUE:\n{listing}"


def _parser():
    parser = cli.parser("diffusion_jax.train", __doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the experiment, a Python file")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="where the run lives")
    add = parser.add_argument_group("going on with other values").add_argument
    add("--from", dest="parent", metavar="DIR[@STEP]", help="begin where another run stood, at its newest checkpoint")
    add("--fresh-optimizer", action="store_true", help="but with a new state of the optimiser, and a new warm-up")
    hosts.add_options(parser)
    return parser


if __name__ == "__main__":
    cpu.keep_memory()
    cli.run(main)
