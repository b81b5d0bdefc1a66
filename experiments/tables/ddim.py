"""DDIM's quality against the number of steps and eta (Song et al. 2021, table 1), on a run of DDPM.

  python -m experiments.tables.ddim --workdir runs/digits
  python -m experiments.tables.ddim --workdir runs/cifar --num 50000 --steps 10,20,50,100,1000 \\
      --grid quadratic --extractor pt_inception-2015-12-05-6726825d.pth

Each entry is a Fréchet distance to the training images, by the extractor; the paper's table stands below it. All
rows walk one grid: `timesteps.leading`, as `sample --sampler ddim` does, or the quadratic one that the paper took
for CIFAR-10 (no more than 0.4 T steps). The row "fixed large" is the paper's sigma-hat: the ancestral sampler with
the variance beta_t, where eta = 1 has the posterior's. So these two rows also compare DDPM's two variances
(experiments/variances.py adds the optimal one, on the ancestral sampler's own grid).

Expect of the digits 2.7 with eta 0 and 4.7 with eta 1 in 10 steps, 1.5 both in 50, and 14.5 and 2.1 with the large
variance (docs/measured/tables.md has all). On two busy CPU cores the rows of 5, 10 and 20 steps take a minute and a
half, as long as those of 50, and half of those of 100.
"""

from diffusion_jax.app import cli, cpu, resolve
from diffusion_jax.diffusion import processes, samplers, timesteps, variances
from diffusion_jax.methods.compose import Chain
from diffusion_jax.training.experiment import SampleRequest
from experiments.tables import shared
from experiments.tables.shared import Cell

# FID of 50,000 images by DDPM's CIFAR-10 network.
PAPER_STEPS = (10, 20, 50, 100, 1000)
PAPER = {
    "eta 0": (13.36, 6.84, 4.67, 4.16, 4.04),
    "eta 0.2": (14.04, 7.11, 4.77, 4.25, 4.09),
    "eta 0.5": (16.66, 8.35, 5.25, 4.46, 4.29),
    "eta 1": (41.07, 18.36, 8.01, 5.78, 4.73),
    "fixed large": (367.43, 133.37, 32.72, 9.99, 3.17),
}
GRIDS = {"leading": timesteps.leading, "quadratic": timesteps.quadratic}


def main(arguments: list[str]):
    """The command `python -m experiments.tables.ddim`."""
    options = _parser().parse_args(arguments)
    run = shared.opened_run(options)
    own = run.experiment.sampling.samplers[resolve.sampler(run.experiment.sampling, "ddim")]
    num, schedule, grid = run.config.diffusion.timesteps, shared.schedule_of(run), GRIDS[options.grid]
    for steps in options.steps:
        grid(steps, num)  # refuses numbers that it cannot have

    def spaced(chain: Chain) -> Chain:
        return chain._replace(times=grid(len(chain.times) - 1, num))

    def fixed_large(chain: Chain) -> Chain:
        transforms = (*chain.transforms, variances.fixed_large(schedule))
        return Chain(samplers.ancestral(processes.gaussian(schedule)), chain.times, transforms)

    chain = shared.changed(shared.method_of(run).chains["ddim"], spaced)
    # The run's own sampler, where the grid is its own: these are the images of `evaluate --sampler ddim`.
    make = own if options.grid == "leading" else shared.sampler_of(run, chain)
    rows = {f"eta {eta:g}": (make, eta) for eta in options.etas}
    rows["fixed large"] = shared.sampler_of(run, shared.changed(chain, fixed_large)), None
    weights = run.averaged()
    cells = [
        Cell(row, f"{steps} steps", make, SampleRequest(1, steps, eta), weights)
        for row, (make, eta) in rows.items()
        for steps in options.steps
    ]
    quality = shared.Quality(options, run.experiment)
    table = quality.table(f"ddim, {options.grid}", cells)
    print(f"{shared.METRIC} of {options.num} images, {options.workdir}, {options.grid} grid\n")
    print(shared.markdown("", table))
    paper = {row: {f"{n} steps": x for n, x in zip(PAPER_STEPS, found, strict=True)} for row, found in PAPER.items()}
    print("\nThe paper's FID of 50,000 images, CIFAR-10\n")
    print(shared.markdown("", paper))
    subject = {"table": "ddim", "grid": options.grid, "weights": weights.about, "weights_sha256": weights.sha256}
    shared.write(options, subject, quality.protocol(), shared.flat(table))


def _parser():
    parser = cli.parser("experiments.tables.ddim", __doc__)
    add = parser.add_argument
    add("--steps", type=shared.integers, default=[5, 10, 20, 50, 100], metavar="LIST", help="(5,10,20,50,100)")
    add("--etas", type=shared.decimals, default=[0, 0.2, 0.5, 1], metavar="LIST", help="(0,0.2,0.5,1)")
    add("--grid", choices=list(GRIDS), default="leading", help="of times (%(default)s)")
    shared.add_images(parser)
    return parser


if __name__ == "__main__":
    cpu.one_device_a_core()
    cli.run(main)
