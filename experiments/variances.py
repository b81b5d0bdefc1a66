"""The variance of a step matters when steps are few: DDPM's two against Analytic-DPM's optimal one, on the digits.

  python -m diffusion_jax.train --config configs/digits.py --workdir runs/digits
  python -m experiments.variances --workdir runs/digits

For each number of steps the ancestral sampler draws the same noises with each variance, judged by `digits_quality`
(Bao et al. 2022, table 1, does so with CIFAR-10.) The optimal variance is measured once for each grid, on the
training images, without any training.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from diffusion_jax import make_sample_fn
from diffusion_jax.app import cli, resolve
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import images
from diffusion_jax.diffusion import guidance, parameterizations, processes, samplers, schedules, timesteps, variances
from diffusion_jax.methods import pixels
from diffusion_jax.training import workdir
from experiments.digits_quality import SHAPE, Judge

MEASURED = 512  # training images that the optimal variance is measured on


def main(arguments: list[str]):
    """The command `python -m experiments.variances`."""
    options = _parser().parse_args(arguments)
    module, config = workdir.open_existing(options.workdir, options.config)
    if tuple(config.data.shape) != SHAPE:
        raise InputError(f"images of {tuple(config.data.shape)}: this experiment judges models of configs/digits.py")
    num = config.diffusion.timesteps
    schedule = schedules.from_betas(schedules.linear_betas(num))
    process = processes.gaussian(schedule)
    parameterization = parameterizations.eps(schedule, parameterizations.table_index(num))
    model = pixels.unet(config)

    def apply(params, x, time):
        return model.apply({"params": params}, x, time)

    _, params = resolve.parameters(options.workdir, module.build(config))
    judge = Judge()
    x0 = images.to_float(judge.train[:MEASURED])
    keys = rng.per_example(jax.random.key(options.seed + 1), jnp.arange(len(x0)))

    def power(params, times):
        denoise = guidance.clip()(
            parameterizations.denoiser(lambda x, time: apply(params, x, time), parameterization)
        )
        return variances.eps_power(denoise, schedule, process, times, x0, keys)

    def quality(steps: int, transform) -> float:
        times = timesteps.uniform(steps, num)
        sample_fn = make_sample_fn(
            apply,
            parameterization,
            process,
            samplers.ancestral(process),
            times,
            options.num,
            SHAPE,
            [guidance.clip(), transform(times)],
        )
        drawn = jax.jit(sample_fn)(params, jax.random.key(options.seed))
        return judge(images.to_uint8(drawn)).distance

    kinds = {
        "fixed large": lambda times: variances.fixed_large(schedule),
        "fixed small": lambda times: variances.posterior(schedule),
        "analytic": lambda times: variances.analytic(
            schedule, times, np.asarray(jax.jit(power, static_argnums=1)(params, tuple(times)))
        ),
    }
    rows = {}
    with tqdm(total=len(options.steps) * len(kinds), unit="set", dynamic_ncols=True) as bar:
        for steps in options.steps:
            rows[steps] = []
            for transform in kinds.values():
                rows[steps].append(quality(steps, transform))
                bar.update()
    print(f"Fréchet distance of {options.num} images to the test digits")
    print(f"{'steps':>6}" + "".join(f"{name:>14}" for name in kinds))
    for steps, values in rows.items():
        print(f"{steps:>6}" + "".join(f"{value:>14.2f}" for value in values))


def _parser():
    parser = cli.parser("experiments.variances", __doc__)
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="a trained run of configs/digits.py")
    add("--steps", type=int, nargs="+", default=[5, 10, 25, 50], metavar="N", help="lengths of chains (%(default)s)")
    add("--num", type=int, default=1000, metavar="N", help="images a set (%(default)s)")
    add("--seed", type=int, default=0, help="of the noise (%(default)s)")
    add("--config", type=Path, metavar="FILE", help="the run's config file, if it has moved")
    return parser


if __name__ == "__main__":
    cli.run(main)
