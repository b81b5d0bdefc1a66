"""The peer of the benchmark of decoding: diffusers' AutoencoderKL."""

import numpy as np
import torch
from diffusers import AutoencoderKL

from experiments.benchmarks import peer
from experiments.benchmarks.decoding import watched
from experiments.benchmarks.shared import cores


def make(options, ours):
    """The peer, or None where torch does not see our device."""
    device = "cuda" if ours["platform"] == "gpu" else "cpu"
    if ours["platform"] not in ("cpu", "gpu") or (device == "cuda" and not torch.cuda.is_available()):
        return None
    peer._use_well(device)
    return Peer(options, device)


class Peer:
    """What the parent may ask of this side; first of all `difference`, which brings the latents."""

    def __init__(self, options, device):
        dtype = torch.bfloat16 if options.bfloat16 else torch.float32
        network = AutoencoderKL.from_pretrained(options.folder, torch_dtype=dtype).eval().to(device)
        self._network = network.to(memory_format=torch.channels_last)
        self._device, self._dtype, self._z = device, dtype, torch.zeros(0)
        if options.tile:
            network.enable_tiling()
            network.tile_sample_min_size, network.tile_latent_min_size = options.tile, options.tile // 8

    def about(self) -> dict:
        versions = f"torch {torch.__version__}, {torch.get_num_threads()} threads of {cores()} cores"
        return {"name": "diffusers", "versions": versions}

    def difference(self, z: np.ndarray, pictures: np.ndarray) -> float:
        """Take these latents; how far our pictures are from those here, as a share of their deviation."""
        self._z = torch.tensor(z).permute(0, 3, 1, 2).to(self._device, self._dtype)
        found = self._decoded().float().permute(0, 2, 3, 1).cpu().numpy()
        return float(np.abs(found - pictures).max() / pictures.std())

    def decode(self) -> tuple[float, float]:
        """(seconds, MiB) of one batch."""
        return watched(lambda: self._decoded().cpu())

    @torch.inference_mode()
    def _decoded(self):
        return self._network.decode(self._z).sample
