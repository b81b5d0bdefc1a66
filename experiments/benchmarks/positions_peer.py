"""The peer of the benchmark of positions: Gated PixelCNN in PyTorch's convolutions, and the usual loop."""

import time

import numpy as np
import torch
from torch.nn.functional import conv2d, pad

from experiments.benchmarks import peer
from experiments.benchmarks.positions import SIZES
from experiments.benchmarks.shared import cores


def make(options, ours):
    """The peer, or None where torch does not see our device."""
    device = "cuda" if ours["platform"] == "gpu" else "cpu"
    if ours["platform"] not in ("cpu", "gpu") or (device == "cuda" and not torch.cuda.is_available()):
        return None
    peer._use_well(device)
    return Peer(options, device)


class Peer:
    """What the parent may ask of this side; first of all `difference`, which brings the weights."""

    def __init__(self, options, device):
        self._shape, self._layers = SIZES[options.size]["shape"], SIZES[options.size]["fields"]["layers"]
        self._batch, self._device, self._weights = options.batch, device, {}

    def about(self) -> dict:
        versions = f"torch {torch.__version__}, {torch.get_num_threads()} threads of {cores()} cores"
        return {"name": "PyTorch", "versions": versions}

    @torch.inference_mode()
    def difference(self, params: dict, tokens: np.ndarray, logits: np.ndarray) -> float:
        """Take these weights; how far our logits of these tokens are from those here, as a share of the largest."""
        self._weights = self._prepared(params)
        found = self._network(torch.tensor(tokens).long().to(self._device)).permute(0, 2, 3, 1).cpu().numpy()
        return float(np.abs(found - logits).max() / np.abs(found).max())

    @torch.inference_mode()
    def seconds(self) -> float:
        """Of one whole chain."""
        height, width = self._shape
        if self._device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        x = torch.zeros(self._batch, height, width, dtype=torch.long, device=self._device)
        for row in range(height):
            for column in range(width):
                law = torch.softmax(self._network(x)[:, :, row, column], dim=-1)
                x[:, row, column] = torch.multinomial(law, 1)[:, 0]
        x.cpu()  # which waits
        return time.perf_counter() - start

    def _prepared(self, params):
        """Our arrays as kernels [out, in, rows, columns]: a window's rows above and its own, the left of its row."""

        def kernel(part, rows, columns):
            array = part["kernel"].reshape(rows, columns, -1, part["kernel"].shape[-1])
            weight = torch.tensor(np.ascontiguousarray(array.transpose(3, 2, 0, 1)), device=self._device)
            weight = weight.contiguous(memory_format=torch.channels_last)
            return weight, torch.tensor(part["bias"], device=self._device)

        def layer(part):
            reach = part["horizontal"]["kernel"].shape[0]
            windows = {"vertical": (reach + 1, 2 * reach + 1), "horizontal": (1, reach)}
            return {name: kernel(part[name], *windows.get(name, (1, 1))) for name in part if "told" not in name}

        layers = [layer(params[f"layer_{i}"]) for i in range(self._layers)]
        ends = {name: kernel(params[name], 1, 1) for name in ("head", "output")}
        table = torch.tensor(params["tokens"]["embedding"], device=self._device)
        return {"layers": layers, "tokens": table, **ends}

    def _network(self, tokens):
        """Logits [B, K, H, W] of tokens [B, H, W]."""
        x = self._weights["tokens"][tokens].permute(0, 3, 1, 2)
        vertical = horizontal = x
        for number, part in enumerate(self._weights["layers"]):
            reach = part["horizontal"][0].shape[3]
            down = conv2d(pad(vertical, (reach, reach, reach, 0)), *part["vertical"])
            across = conv2d(pad(horizontal, (reach, 0, 0, 0))[..., :-1], *part["horizontal"])
            across = across + conv2d(pad(down, (0, 0, 1, 0))[:, :, :-1], *part["link"])
            if "own" in part:
                across = across + conv2d(horizontal, *part["own"])
            vertical = _gated(down)
            h = conv2d(_gated(across), *part["out"])
            horizontal = horizontal + h if number else h
        h = conv2d(torch.relu(horizontal), *self._weights["head"])
        return conv2d(torch.relu(h), *self._weights["output"])


def _gated(x):
    a, b = x.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)
