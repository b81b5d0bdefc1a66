"""The decay, or the profile, of the parameters' moving average against quality.

  python -m experiments.tables.ema --workdir runs/digits
  python -m experiments.tables.ema --workdir runs/cifar --train-steps 100000 --rates 0.99,0.999,0.9999,0.99999 \\
      --num 50000 --extractor pt_inception-2015-12-05-6726825d.pth

Trains the config of the run again, from the start, and averages the parameters at all rates on the way, and by the
power functions of --profiles: one training for the whole table. It is kept in WORKDIR/tables/ema_RATES, so that the
same command goes on after a kill, and to more steps. Then each average, and the parameters themselves ("raw"), draw
from the same noises; an entry is the Fréchet distance of what they draw to the training images.

Expect of the digits with --sampler ddim --steps 20, after the default 1000 steps: 4.8 at 0.99, 7.5 at 0.997, 85 at
0.999, which still remembers the start, and 9.0 raw. Two minutes on two busy CPU cores.
"""

from collections.abc import Sequence
from typing import Any

import jax

from diffusion_jax.app import cli, cpu, resolve
from diffusion_jax.core.errors import InputError
from diffusion_jax.training import averages
from diffusion_jax.training.experiment import SampleRequest
from diffusion_jax.training.loop import fit
from experiments.tables import shared
from experiments.tables.shared import Cell


def main(arguments: list[str]):
    """The command `python -m experiments.tables.ema`."""
    options = _parser().parse_args(arguments)
    if options.train_steps < 1:
        raise InputError(f"--train-steps {options.train_steps} must be at least 1")
    averages.named(options.rates, options.profiles)  # refuses what is out of range
    run = shared.opened_run(options)
    make = run.experiment.sampling.samplers[resolve.sampler(run.experiment.sampling, options.sampler)]
    request = SampleRequest(1, options.steps)
    make(request)
    quality = shared.Quality(options, run.experiment)
    averaged, raw = trained(run, options.train_steps, options.rates, options.profiles)
    cells = [
        Cell(name, f"{options.train_steps} steps", make, request, shared.weights(params, name))
        for name, params in {**averaged, "raw": raw}.items()
    ]
    table = quality.table(f"ema, {resolve.sampler(run.experiment.sampling, options.sampler)}", cells)
    print(f"{shared.METRIC} of {options.num} images, config of {options.workdir}\n")
    print(shared.markdown("decay", table))
    subject = {"table": "ema", "sampler": options.sampler, "steps": options.steps, "train_steps": options.train_steps}
    shared.write(options, subject, quality.protocol(), shared.flat(table))


def trained(
    run: shared.Run, steps: int, rates: Sequence[float], profiles: Sequence[float] = ()
) -> tuple[dict[str, Any], Any]:
    """Rate or sigma_rel -> averaged parameters, and the parameters themselves, after `steps` updates.

    Raises:
      InputError: more updates than that have been made already.
    """
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.train.steps = steps
        config.log.sample_every = 0
        config.log.snapshot_every = 0
    known = averages.named(rates, profiles)
    optimization = run.experiment.optimization._replace(averages=known)
    experiment = run.experiment._replace(optimization=optimization)
    folder = run.folder / "tables" / "_".join(["ema", *known])
    state = jax.device_get(fit(experiment, config, folder))
    if state.step > steps:
        raise InputError(f"{folder} has {state.step} steps already; give --train-steps {state.step}, or delete it")
    return {name: state.averages[name] for name in known}, state.params


def _parser():
    parser = cli.parser("experiments.tables.ema", __doc__)
    add = parser.add_argument
    rates = [0.9, 0.99, 0.997, 0.999]
    add("--rates", type=shared.decimals, default=rates, metavar="LIST", help="decays (0.9,0.99,0.997,0.999)")
    add("--profiles", type=shared.decimals, default=[], metavar="LIST", help="sigma_rel of power functions (none)")
    add("--train-steps", type=int, default=1000, metavar="N", help="of training (%(default)s)")
    add("--sampler", metavar="NAME", help="one of the config's (its first)")
    add("--steps", type=int, metavar="N", help="of the sampler (its own default)")
    shared.add_images(parser)
    return parser


if __name__ == "__main__":
    cpu.one_device_a_core()
    cli.run(main)
