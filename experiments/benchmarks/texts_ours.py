"""Our side of the benchmark of texts: as `sample --pretrained` draws."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.core import rng
from diffusion_jax.pipelines import published
from diffusion_jax.training.experiment import SampleRequest
from experiments.benchmarks.decoding import watched
from experiments.benchmarks.texts import PROMPT


def make(options, ours):
    """Our side always runs."""
    return Ours(options)


class Ours:
    """What the parent may ask of this side: first of all `load`, where nothing else was done."""

    def __init__(self, options):
        self._folder, self._steps, self._dtype = options.folder, options.steps, jnp.dtype(options.dtype)
        self._draw = None

    def about(self) -> dict:
        return {"name": "diffusion_jax", "versions": f"jax {jax.__version__}"}

    def load(self) -> float:
        """The most memory taken, as a share of the bytes of what is read: the U-Net and the first stage."""
        model = published.diffusers(self._folder, size="512x512", dtype=None)
        held: list = []
        _, memory = watched(lambda: held.append(model.load()[0]))
        files = [path for part in ("unet", "vae") for path in (Path(self._folder) / part).glob("*.safetensors")]
        return memory * 2**20 / sum(path.stat().st_size for path in files)

    def picture(self) -> float:
        """Seconds; of the first with what is compiled."""
        if self._draw is None:
            model = published.diffusers(self._folder, size="512x512", dtype=self._dtype)
            (self._cond,) = model.sample_condition(1, {"prompt": np.array([PROMPT], object)})
            self._params = model.load()[0]
            self._draw = jax.jit(model.samplers["published"](SampleRequest(1, self._steps)))
        start = time.perf_counter()
        keys = rng.per_example(rng.root(0), jnp.arange(1))
        found = np.asarray(self._draw(self._params, keys, self._cond))
        assert np.isfinite(found).all()
        return time.perf_counter() - start
