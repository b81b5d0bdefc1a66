"""Do inpainting, editing and interpolation leave a digit what it was?

  python -m diffusion_jax.train --config configs/digits.py --workdir runs/digits
  python -m experiments.steering --workdir runs/digits

Steers the unconditional model of configs/digits.py with test digits, and prints how often the classifier of
`digits_quality` gives what comes out the label of the digit that went in, beside a control: digits that know nothing
of it. For interpolation it prints how far its ends are from the digits that they should be. Two minutes on two CPU
cores; docs/concepts/guidance.md has the figures.
"""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax import make_sample_fn
from diffusion_jax.app import cli
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import images, sources
from diffusion_jax.diffusion import (
    editing,
    guidance,
    inpainting,
    parameterizations,
    processes,
    samplers,
    schedules,
    timesteps,
)
from diffusion_jax.methods import pixels
from diffusion_jax.training import workdir
from diffusion_jax.training.checkpoint import Checkpoints
from experiments.digits_quality import SHAPE, Judge

JUMP, RESAMPLINGS = 10, 5  # RePaint's
STARTS = (0.1, 0.3, 0.5, 0.7, 1.0)  # of image to image; at 1 the model is told nothing
ITERATIONS = (1, 5)  # of the inversion


def main(arguments: list[str]):
    """The command `python -m experiments.steering`."""
    options = _parser().parse_args(arguments)
    module, config = workdir.open_existing(options.workdir, options.config)
    if tuple(config.data.shape) != SHAPE:
        raise InputError(f"images of {tuple(config.data.shape)}: this experiment steers models of configs/digits.py")
    num, steps = config.diffusion.timesteps, options.steps
    schedule = schedules.from_betas(schedules.linear_betas(num))
    process = processes.gaussian(schedule)
    parameterization = parameterizations.eps(schedule, parameterizations.table_index(num))
    model = pixels.unet(config)
    template = jax.eval_shape(module.build(config).task.init, jax.random.key(0))
    with Checkpoints(options.workdir / "checkpoints") as checkpoints:
        _, params = checkpoints.restore("ema", template)
    digits, labels = _digits(options.num)
    key = jax.random.key(options.seed)

    def apply(params, x, time):
        return model.apply({"params": params}, x, time)

    chain = apply, parameterization, process, samplers.ancestral(process)
    tricks = {"transforms": [guidance.clip()]}

    def filled(run, steps):
        times = timesteps.uniform(steps, num)
        return jax.jit(make_sample_fn(*chain, times, len(digits), SHAPE, run=run, **tricks))(params, key)

    def edited(start):
        times = timesteps.uniform(steps, num)
        return jax.jit(editing.image_to_image(*chain, times, start, **tricks))(params, key, digits)

    @partial(jax.jit, static_argnums=1)
    def returned(params, iterations):
        denoise = parameterizations.denoiser(partial(apply, params), parameterization)
        times = timesteps.leading(steps, num)
        return editing.interpolate(schedule, times, denoise, digits, digits[::-1], 0.0, iterations)

    judge = Judge()
    upper = (np.arange(SHAPE[0]) < SHAPE[0] // 2)[:, None, None]
    replacement = inpainting.replacement(process, digits, upper)
    repaint = inpainting.repaint(schedule, digits, upper, JUMP, RESAMPLINGS)
    evaluations = len(inpainting.route(steps, JUMP, RESAMPLINGS)[0])
    rows = {
        "the digits themselves": lambda: digits,
        f"lower half by replacement, {steps} steps": lambda: filled(replacement, steps),
        f"    {evaluations} steps": lambda: filled(replacement, evaluations),
        f"    RePaint, {evaluations} evaluations": lambda: filled(repaint, steps),
        **{f"from the digit at t = {start}": partial(edited, start) for start in STARTS},
    }
    print(f"{len(digits)} test digits: the classifier still gives them their label")
    for name, draw in rows.items():
        share = judge.agreement(images.to_uint8(draw()), labels)
        print(f"{name:<44}{100 * share:6.1f} %", flush=True)
    print("between two digits: distance of an end from its digit (root mean square, pixels in [-1, 1])")
    for iterations in ITERATIONS:
        error = float(jnp.sqrt(jnp.mean((returned(params, iterations) - digits) ** 2)))
        print(f"{f'evaluations a step of the inversion: {iterations}':<44}{error:8.3f}", flush=True)


def _digits(num: int) -> tuple[np.ndarray, np.ndarray]:
    """The first `num` test digits, float32 [N, 8, 8, 1], and their labels."""
    source = sources.digits("test")
    some = [source[i] for i in range(min(num, len(source)))]
    return images.to_float(np.stack([one["image"] for one in some])), np.array([one["label"] for one in some])


def _parser():
    parser = cli.parser("experiments.steering", __doc__)
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="a trained run of configs/digits.py")
    add("--num", type=int, default=200, metavar="N", help="how many digits (%(default)s)")
    add("--steps", type=int, default=50, metavar="N", help="steps of a chain (%(default)s)")
    add("--seed", type=int, default=0, help="of the noise (%(default)s)")
    add("--config", type=Path, metavar="FILE", help="the run's config file, if it has moved")
    return parser


if __name__ == "__main__":
    cli.run(main)
