"""Samplers at equal numbers of network evaluations, on one trained network.

  python -m experiments.tables.samplers --workdir runs/edm
  python -m experiments.tables.samplers --workdir runs/digits --samplers ancestral,ddim,euler,heun,dpmpp_2m
  python -m experiments.tables.samplers --workdir runs/cifar --num 50000 \\
      --extractor pt_inception-2015-12-05-6726825d.pth

A row is a sampler, a column a budget of evaluations an image, an entry the Fréchet distance to the training images
of as many steps as the budget pays for. Evaluations are counted in each sampler's own code: Heun's method takes two
a step but for the last, 2 N - 1 in N steps.

By default the rows are the run's own samplers, each on its own grid. Others of `shared.BY_SCHEDULE` walk the grid of
the run's first sampler, with its clipping, if its schedule is a linear or cosine table, flow or edm.

Expect of DDPM's digits in 10 evaluations 5.3 (ancestral), 2.7 (ddim), 1.7 (heun) and 1.3 (dpmpp_2m);
docs/measured/tables.md has more. Some three minutes for EDM's six samplers on two busy CPU cores.
"""

import operator

import jax
import jax.numpy as jnp

from diffusion_jax.app import cli, cpu
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import samplers
from diffusion_jax.training.experiment import Experiment, MakeSampler, SampleRequest
from experiments.tables import shared
from experiments.tables.shared import BY_SCHEDULE, Cell, Run


def main(arguments: list[str]):
    """The command `python -m experiments.tables.samplers`."""
    options = _parser().parse_args(arguments)
    run = shared.opened_run(options)
    weights = run.averaged()
    cells = []
    for name, make in chosen(run, options.samplers).items():
        for budget in options.evaluations:
            steps = affordable(run.experiment, make, budget)
            if steps:
                cells.append(Cell(name, f"{budget} evaluations", make, SampleRequest(1, steps), weights))
    if not cells:
        raise InputError("no sampler takes a step with so few evaluations; give larger --evaluations")
    quality = shared.Quality(options, run.experiment)
    table = quality.table("samplers", cells)
    print(f"{shared.METRIC} of {options.num} images, {options.workdir}\n")
    print(shared.markdown("", table))
    subject = {"table": "samplers", "weights": weights.about, "weights_sha256": weights.sha256}
    steps = {f"{cell.row}, {cell.column}": cell.request.steps for cell in cells}
    shared.write(options, subject, quality.protocol(), shared.flat(table), steps=steps)


def chosen(run: Run, names: list[str] | None) -> dict[str, MakeSampler]:
    """Name -> (`SampleRequest -> sample_fn`), of the run's own samplers and of others.

    Raises:
      InputError: one is not known, or the run's schedule is not.
    """
    own = run.experiment.sampling.samplers
    others = [name for name in names or () if name not in own]
    unknown = [name for name in others if name not in BY_SCHEDULE]
    if unknown:
        known = ", ".join(dict.fromkeys([*own, *BY_SCHEDULE]))
        raise InputError(f"no sampler {unknown[0]} for this model; choose from {known}")
    borrowed = {}
    if others:
        schedule = shared.schedule_of(run)
        first = next(iter(shared.method_of(run).chains.values()))
        for name in others:
            change = operator.methodcaller("_replace", sampler=BY_SCHEDULE[name](schedule))
            borrowed[name] = shared.sampler_of(run, shared.changed(first, change))
    return {name: own[name] if name in own else borrowed[name] for name in names or own}


def affordable(experiment: Experiment, make: MakeSampler, budget: int) -> int:
    """How many steps `budget` evaluations of the network pay for; 0 where not even one."""
    two, three = evaluations(experiment, make, 2), evaluations(experiment, make, 3)
    each = three - two
    return max(0, (budget - (two - 2 * each)) // each)


def evaluations(experiment: Experiment, make: MakeSampler, steps: int) -> int:
    """How often a chain of `steps` steps asks the network, counted."""
    calls = []

    def count(sampler, times, denoise, x, keys):
        said = jax.eval_shape(denoise, x, jnp.float32(times[0]))

        def counted(x, t):
            calls.append(t)
            return jax.tree.map(jnp.zeros_like, said)

        # Each of the loop's steps is computed by itself, and only the branch that it takes.
        with jax.ensure_compile_time_eval(), jax.disable_jit():
            x = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), x)
            return samplers.solve(sampler, times, counted, x, jax.random.split(rng.root(0), 1))

    params = jax.eval_shape(experiment.task.init, rng.root(0))
    sample_fn = make(SampleRequest(1, steps, run=count))
    jax.eval_shape(sample_fn, params, rng.root(0), *experiment.data.sample_condition(1, {}))
    return len(calls)


def _parser():
    parser = cli.parser("experiments.tables.samplers", __doc__)
    add = parser.add_argument
    add("--samplers", type=shared.words, metavar="LIST", help="which (all that the run has)")
    add("--evaluations", type=shared.integers, default=[10, 20, 40], metavar="LIST", help="of the network (10,20,40)")
    shared.add_images(parser)
    return parser


if __name__ == "__main__":
    cpu.one_device_a_core()
    cli.run(main)
