"""Do completions and enlargements by a consistency model leave a digit what it was?

  python -m experiments.few_step_editing --workdir runs/consistency --picture edited.png

Test digits of which the upper half is known, or the means of 2x2 pixels. Prints how often the classifier of
`digits_quality` gives what comes out the label of the digit that went in, by the number of looks, beside a control:
the digits that the same noise becomes where nothing is known. The picture shows ten digits, what is known of them,
and what is drawn in 1, 4, 18 and 40 looks; first completed, then enlarged. A minute on two CPU cores.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.app import cli, known, resolve
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import images, sources
from diffusion_jax.training.experiment import SampleRequest
from diffusion_jax.training.trained import parameters
from experiments.digits_quality import SHAPE, Judge

STEPS = (1, 4, 18, 40)
SHOWN = 10


def main(arguments: list[str]):
    """The command `python -m experiments.few_step_editing`."""
    options = _parser().parse_args(arguments)
    experiment = resolve.experiment(options.workdir, options.config)
    drawn_by, edits = experiment.sampling.samplers, experiment.sampling.edits
    if experiment.data.shape != SHAPE or not {"inpaint", "enlarge"} <= edits.keys():
        raise InputError(f"{options.workdir} is no consistency model of digits; train configs/consistency.py")
    make = next(iter(drawn_by.values()))
    _, params = parameters(options.workdir, experiment)
    source = sources.digits("test")
    some = [source[i] for i in range(min(options.num, len(source)))]
    digits = images.to_float(np.stack([one["image"] for one in some]))
    labels = np.array([one["label"] for one in some])
    keys = rng.per_example(rng.root(options.seed), jnp.arange(len(digits)))
    mask = np.broadcast_to((np.arange(8) < 4)[:, None, None], digits.shape).astype(np.float32)
    small = digits.reshape(-1, 4, 2, 4, 2, 1).mean((2, 4))
    ways = {
        "upper half": (known.drawing(make, edits["inpaint"]), ({"image": digits, "mask": mask},)),
        "means of 2x2": (known.drawing(make, edits["enlarge"]), ({"image": small},)),
        "nothing (control)": (make, ()),
    }

    def drawn(name, steps):
        made, told = ways[name]
        return images.to_uint8(jax.jit(made(SampleRequest(len(digits), steps)))(params, keys, *told))

    judge = Judge()
    print(f"{len(digits)} test digits: the classifier gives them their label, by the number of looks\n")
    print(f"{'known':<20}" + "".join(f"{steps:>9}" for steps in STEPS))
    shown = {}
    for name in ways:
        found = {steps: drawn(name, steps) for steps in STEPS}
        shares = [100 * judge.agreement(x, labels) for x in found.values()]
        print(f"{name:<20}" + "".join(f"{share:7.1f} %" for share in shares), flush=True)
        shown[name] = [found[steps][:SHOWN] for steps in STEPS]
    if options.picture:
        kept, blocks = np.where(mask > 0, digits, 0), small.repeat(2, axis=1).repeat(2, axis=2)
        rows = [digits, kept, *shown["upper half"], digits, blocks, *shown["means of 2x2"]]
        rows = [x[:SHOWN] if x.dtype == np.uint8 else images.to_uint8(x[:SHOWN]) for x in rows]
        images.save_png(options.picture, images.grid(np.concatenate(rows), columns=SHOWN, scale=6))


def _parser():
    parser = cli.parser("experiments.few_step_editing", __doc__)
    add = parser.add_argument
    add("--workdir", type=Path, required=True, metavar="DIR", help="a trained run of configs/consistency.py")
    add("--num", type=cli.whole(SHOWN), default=597, metavar="N", help="how many digits (%(default)s)")
    add("--seed", type=cli.whole(0), default=0, help="of the noise (%(default)s)")
    add("--picture", type=Path, metavar="FILE", help="where to draw ten of them")
    add("--config", type=Path, metavar="FILE", help="the run's config file, if it has moved")
    return parser


if __name__ == "__main__":
    cli.run(main)
