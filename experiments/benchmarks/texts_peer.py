"""The peer of the benchmark of texts: diffusers' pipeline of the same folder."""

import time
from pathlib import Path

import diffusers
import torch

from experiments.benchmarks import peer
from experiments.benchmarks.decoding import watched
from experiments.benchmarks.shared import cores
from experiments.benchmarks.texts import PROMPT


def make(options, ours):
    """The peer, on the CPU."""
    peer._use_well("cpu")
    return Peer(options)


class Peer:
    """What the parent may ask of this side."""

    def __init__(self, options):
        self._folder, self._steps, self._dtype = options.folder, options.steps, getattr(torch, options.dtype)
        self._pipeline = None

    def about(self) -> dict:
        versions = f"torch {torch.__version__}, diffusers {diffusers.__version__}"
        return {"name": "diffusers", "versions": f"{versions}, {torch.get_num_threads()} threads of {cores()} cores"}

    def load(self) -> float:
        """The most memory taken, as a share of the bytes of what is read: all networks."""
        held: list = []
        _, memory = watched(lambda: held.append(self._opened(torch.bfloat16)))
        size = sum(path.stat().st_size for path in Path(self._folder).rglob("*.safetensors"))
        return memory * 2**20 / size

    def picture(self) -> float:
        """Seconds; of the first with what is compiled, which is nothing."""
        if self._pipeline is None:
            self._pipeline = self._opened(self._dtype)
            self._pipeline.set_progress_bar_config(disable=True)
        start = time.perf_counter()
        said = {"num_inference_steps": self._steps, "height": 512, "width": 512, "output_type": "np"}
        self._pipeline(PROMPT, guidance_scale=7.5, **said)
        return time.perf_counter() - start

    def _opened(self, dtype):
        return diffusers.DiffusionPipeline.from_pretrained(self._folder, torch_dtype=dtype)
