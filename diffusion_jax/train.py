"""Train a diffusion model, or go on training it.

  python -m diffusion_jax.train --config configs/digits.py --workdir runs/digits
  python -m diffusion_jax.train --config configs/cifar.py --workdir runs/cifar --config.train.batch_size=64

The work directory holds checkpoints, metrics (metrics.jsonl, TensorBoard) and sample grids. Given again, the
same command goes on from the newest checkpoint, exactly as if it had never stopped. It trains on all devices
that JAX sees. Every value in the config file can be overridden as --config.SECTION.NAME=VALUE.
"""

from diffusion_jax import ending

if __name__ == "__main__":
    ending.at_once()  # before the rest is imported, which takes seconds

from pathlib import Path

import jax

from diffusion_jax import cli, config, cpu
from diffusion_jax.errors import InputError
from diffusion_jax.training.loop import fit


def main(arguments: list[str]):
    """The command `python -m diffusion_jax.train`."""
    options, overrides = _parser().parse_known_args(arguments)
    module = config.load(options.config)
    values = config.override(module.get_config(), overrides)
    _start_hosts(options)
    experiment = module.build(values)
    fit(experiment, values, options.workdir, config_file=options.config)
    if jax.process_index() == 0 and experiment.samplers:
        config.line(f"draw from it with: python -m diffusion_jax.sample --workdir {options.workdir}")


def _parser():
    parser = cli.parser("diffusion_jax.train", __doc__)
    parser.add_argument("--config", type=Path, required=True, metavar="FILE", help="the experiment, a Python file")
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="where the run lives")
    hosts = parser.add_argument_group(
        "several hosts", "Give the same command on every host; on TPU pods and under Slurm --distributed is enough."
    )
    hosts.add_argument("--distributed", action="store_true", help="join the other hosts through jax.distributed")
    hosts.add_argument("--coordinator", metavar="HOST:PORT", help="address of host 0 (implies --distributed)")
    hosts.add_argument("--hosts", type=int, metavar="N", help="number of hosts, with --coordinator")
    hosts.add_argument("--host", type=int, metavar="I", help="this host, 0 to N - 1, with --coordinator")
    return parser


def _start_hosts(options):
    given = [options.coordinator, options.hosts, options.host]
    if any(x is not None for x in given) and any(x is None for x in given):
        raise InputError("--coordinator, --hosts and --host go together; give all three, or only --distributed")
    if options.coordinator and not options.coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator {options.coordinator} has no port; give HOST:PORT")
    if options.coordinator and not 0 <= options.host < options.hosts:
        raise InputError(f"--host {options.host} of --hosts {options.hosts}: give 0 to {options.hosts - 1}")
    if options.distributed or options.coordinator:
        try:
            jax.distributed.initialize(options.coordinator, options.hosts, options.host)
        except (ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(
                f"cannot join the other hosts ({reason}); without a cluster that JAX knows, give --coordinator, "
                "--hosts and --host, or train on this host alone, without --distributed"
            ) from error


if __name__ == "__main__":
    cpu.keep_memory()
    cli.run(main)
