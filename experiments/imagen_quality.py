"""How good is Imagen in small on captions of MNIST? What independent classifiers read of its pictures.

  python -m experiments.imagen_quality --workdir runs/imagen_super_resolution
  python -m experiments.imagen_quality --workdir runs/imagen_super_resolution --each 10 --png captions.png

Classifiers, FD and the rows of training digits are those of experiments.captioned_quality. The rows, of the base's
pictures:

  guidance 1.5      clipped estimates
  guidance 3, 1.5   dynamic thresholding with a largest threshold of 1.5; of 1000 it has no limit

and of the larger pictures of a base of guidance 1.5, with noise of a level on its pictures, the same of the network
that enlarges. A last line compares pictures of the whole cascade that are drawn in one program, and stage by stage.
"""

import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from diffusion_jax.app import cli
from diffusion_jax.core import files, rng
from diffusion_jax.diffusion import stages
from diffusion_jax.diffusion.cascades import LOW
from diffusion_jax.diffusion.noising import LEVEL
from diffusion_jax.diffusion.stages import Stage
from diffusion_jax.methods import imagen_super_resolution, staged
from diffusion_jax.methods.imagen_super_resolution import UPPER
from diffusion_jax.training import held, workdir
from diffusion_jax.training.experiment import SampleRequest
from diffusion_jax.training.trained import parameters
from experiments.captioned_quality import CAPTIONS, Captioned, judged, parser_of, show

STEPS = 25
BASES = {f"guidance {g:g}": (g, 1.0) for g in (1.0, 1.5, 3.0)}
BASES |= {f"guidance {g:g}, {limit:g}": (g, limit) for g, limit in ((1.5, 1.5), (3.0, 1.5), (3.0, 1000.0))}
UPPERS = {f"level {level:g}": (1.0, 1.0, level) for level in (0.0, 0.1, 0.3)}
UPPERS |= {f"guidance {g:g}": (g, 1.0, 0.1) for g in (1.5, 3.0)}
UPPERS |= {"guidance 3, 1.5": (3.0, 1.5, 0.1)}
BASE = (1.5, 1.0)  # of the larger pictures


def main(arguments: list[str]):
    """The command `python -m experiments.imagen_quality`."""
    options = parser_of("imagen_quality", __doc__, "imagen_super_resolution").parse_args(arguments)
    run = Run(options.workdir)
    keys = rng.per_example(rng.root(options.seed), jnp.arange(CAPTIONS * options.each))
    rows: dict = {}
    small = {name: run.captioned.draw(run.stages(*way)[:2], [LOW], keys)[LOW] for name, way in BASES.items()}
    judged(run.captioned, small, rows)
    large = {name: run.enlarged(keys, *way) for name, way in UPPERS.items()}
    judged(run.captioned, large, rows)
    rows["apart"] = run.apart(keys[:CAPTIONS])
    print(f"in one program and stage by stage pictures differ by at most {rows['apart']:.1e}")
    if options.png:
        show(options.png, large["level 0.1"][:CAPTIONS])
    if options.json:
        files.write(options.json, lambda file: file.write((json.dumps(rows, indent=1) + "\n").encode()))


class Run:
    """A trained cascade."""

    def __init__(self, folder: Path):
        _, self._config = workdir.open_existing(folder)
        experiment = imagen_super_resolution.build(self._config)
        own = parameters(folder, experiment)[1]
        known = held.load(folder, experiment.task.held)
        self.captioned = Captioned(experiment.data, {UPPER: own, **known})
        self._drawn: dict = {}

    def stages(self, scale: float, threshold: float, upper: float = 1.0, upper_threshold: float = 1.0) -> list[Stage]:
        """What reads, the base, what adds noise, what enlarges: guidance and largest threshold of both networks."""
        config = ConfigDict(self._config.to_dict())
        config.base.update(guidance=scale, threshold=threshold, steps=STEPS)
        config.text.threshold = upper_threshold
        request = SampleRequest(CAPTIONS, steps=STEPS, guidance_scale=upper)
        return staged.all_stages(*imagen_super_resolution.cascade(config), "ddim", request)

    def enlarged(self, keys, upper: float, threshold: float, level: float) -> np.ndarray:
        """The larger pictures of the same small ones, whatever enlarges them."""
        listed = self.stages(*BASE, upper, threshold)
        read, base, *rest = listed
        if not self._drawn:
            self._drawn = self.captioned.draw([read, base], [*read.gives, LOW], keys)
        cond = {**self._drawn, LEVEL: np.full(len(keys), level, np.float32)}
        return self.captioned.draw(rest, ["image"], keys, cond)["image"]

    def apart(self, keys) -> float:
        """The largest difference between pictures of one program, and of one a stage."""
        listed = self.stages(*BASE)
        cond = {**self.captioned.told, LEVEL: jnp.full(len(keys), 0.1)}
        whole = self.captioned.draw(listed, ["image"], keys, cond)["image"]
        read = {name: lambda name=name: self.captioned.params[name] for name in self.captioned.params}
        return float(np.abs(whole - stages.apart(listed, read, keys, cond)["image"]).max())


if __name__ == "__main__":
    cli.run(main)
