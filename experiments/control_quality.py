"""Do a ControlNet's digits follow their hint? The correlation of their edges with it, beside controls.

  python -m experiments.control_quality --workdir runs/control

Draws digits with the edges of test digits for hints, and prints three correlations, over all pixels of all images:
of the edges of the digits drawn with the hint they were given, of the same edges with the hints of others (shifted by
one), and of the test digits' own edges with themselves, which is 1. The second is what a model that does not listen
gets, for digits are somewhat alike.
"""

from pathlib import Path

import numpy as np

from diffusion_jax import sample
from diffusion_jax.app import cli, cpu
from diffusion_jax.data import hints, images
from experiments.digits_quality import Judge


def main(arguments: list[str]):
    """The command `python -m experiments.control_quality`."""
    parser = cli.parser("experiments.control_quality", __doc__)
    parser.add_argument("--workdir", type=Path, required=True, metavar="DIR", help="a run of configs/control.py")
    parser.add_argument("--num", type=int, default=500, metavar="N", help="how many digits to draw (%(default)s)")
    options = parser.parse_args(arguments)
    out = options.workdir / "quality"
    sample.main([f"--workdir={options.workdir}", f"--num={options.num}", f"--out={out}"])
    drawn, hint = np.load(out / "samples.npz")["images"], np.load(out / "condition.npz")["hint"]
    given, others = correlations(drawn, hint)
    print(f"edges of the digits with their hints     {given:.3f}")
    print(f"the same with the hints of others        {others:.3f}")
    print(f"Fréchet distance to the test digits      {Judge()(drawn).distance:.2f}")


def correlations(drawn: np.ndarray, hint: np.ndarray) -> tuple[float, float]:
    """Of the edges of uint8 images [N, H, W, C] with hints [N, H, W, 1]: their own, and those of the next image."""
    found = np.asarray(hints.edges(images.to_float(drawn))).ravel()
    return tuple(float(np.corrcoef(found, np.roll(hint, shift, axis=0).ravel())[0, 1]) for shift in (0, 1))


if __name__ == "__main__":
    cpu.one_device_a_core()
    cli.run(main)
