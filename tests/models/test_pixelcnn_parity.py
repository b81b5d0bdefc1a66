"""Our Gated PixelCNN against one written in PyTorch's own convolutions, masked, with the same weights redrawn.

Values and all gradients, with a label and a map told, of one channel and of three. In float32 they differ by
rounding: 1e-6 or so, asserted below 2e-5 of the largest.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from tests.models.raster_tiny import made, redrawn

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")

pytestmark = pytest.mark.slow

TOLERANCE = 2e-5
VOCAB, LAYERS, FEATURES, SIDE, FIRST = 5, 3, 12, 3, 5
BATCH, HEIGHT, WIDTH = 2, 5, 6
functional = torch.nn.functional


def convolved(x, weights, places, side, bias=None):
    """The masked `side` x `side` convolution of [B, C, H, W] whose weights [P, C, K] stand at `places`."""
    kernel = x.new_zeros(weights.shape[2], weights.shape[1], side, side)
    for (row, column), weight in zip(places, weights, strict=True):
        kernel[:, :, row + side // 2, column + side // 2] = weight.T
    return functional.conv2d(x, kernel, bias, padding=side // 2)


def grouped(x, part, groups, strict=False):
    """A 1x1 convolution in which the outputs of a group see the inputs of the groups before it (mask A), or its own
    too (mask B)."""
    inputs, outputs = part["kernel"].shape
    ins, outs = torch.arange(inputs) // (inputs // groups), torch.arange(outputs) // (outputs // groups)
    mask = ins[:, None] < outs[None] if strict else ins[:, None] <= outs[None]
    return functional.conv2d(x, (part["kernel"] * mask).T[:, :, None, None], part["bias"])


def plain(x, part):
    return functional.conv2d(x, part["kernel"].T[:, :, None, None], part["bias"])


def gate(x, groups):
    a, b = x.unflatten(1, (groups, 2, -1)).unbind(2)
    return torch.tanh(a).flatten(1, 2) * torch.sigmoid(b).flatten(1, 2)


def theirs(params, tokens, label, top):
    """Logits [B, H, W, C, K] of tokens [B, H, W, C]; `params` are ours, as tensors."""
    batch, height, width, groups = tokens.shape
    vector = params["embed_label"]["embedding"][label]
    x = params["tokens"]["embedding"][tokens].flatten(3).permute(0, 3, 1, 2)
    vertical = horizontal = x
    for i in range(LAYERS):
        part, side = params[f"layer_{i}"], SIDE if i else FIRST
        reach = side // 2
        window = [(r, c) for r in range(-reach, 1) for c in range(-reach, reach + 1)]
        left = [(0, c) for c in range(-reach, 0)]
        down = convolved(vertical, part["vertical"]["kernel"], window, side, part["vertical"]["bias"])
        across = convolved(horizontal, part["horizontal"]["kernel"], left, side, part["horizontal"]["bias"])
        across = across + plain(functional.pad(down, (0, 0, 1, 0))[:, :, :-1], part["link"])
        if "own" in part:
            across = across + grouped(horizontal, part["own"], groups, strict=i == 0)

        def told(name, part=part):
            bias = vector @ part[name]["vector"]["kernel"] + part[name]["vector"]["bias"]
            return bias[:, :, None, None] + plain(top.permute(0, 3, 1, 2), part[name]["maps"])

        vertical = gate(down + told("vertical_told"), groups)
        h = grouped(gate(across + told("horizontal_told"), groups), part["out"], groups)
        horizontal = h if i == 0 else horizontal + h
    h = torch.relu(grouped(torch.relu(horizontal), params["head"], groups))
    logits = grouped(h, params["output"], groups)
    return logits.reshape(batch, groups, VOCAB, height, width).permute(0, 3, 4, 1, 2)


@pytest.mark.parametrize("channels", [1, 3])
def test_values_and_gradients_are_the_same(channels):
    fields = {"embed": {"label": LabelEmbedding(4)}, "maps": ("top",)}
    model = made("GatedPixelCNN", VOCAB, features=FEATURES, layers=LAYERS, side=SIDE, first_side=FIRST, **fields)
    numbers = np.random.default_rng(0)
    x = numbers.integers(0, VOCAB, (BATCH, HEIGHT, WIDTH, channels)).astype(np.int32)
    cond = {"label": np.array([3, 1], np.int32), "top": numbers.normal(size=(BATCH, HEIGHT, WIDTH, 2))}
    cond["top"] = cond["top"].astype(np.float32)
    weights = numbers.normal(size=(*x.shape, VOCAB)).astype(np.float32)
    params = redrawn(model, x, cond)

    @jax.jit
    def ours(params, top):
        def total(params, top):
            logits = model.apply({"params": params}, x, None, cond | {"top": top})
            return (logits * weights).sum(), logits

        return jax.value_and_grad(total, (0, 1), has_aux=True)(params, top)

    (_, logits), gradients = ours(params, cond["top"])
    tensors = jax.tree.map(lambda leaf: torch.tensor(np.asarray(leaf), requires_grad=True), (params, cond["top"]))
    found = theirs(tensors[0], torch.tensor(x).long(), torch.tensor(cond["label"]).long(), tensors[1])
    (found * torch.tensor(weights)).sum().backward()
    near(logits, found.detach())
    for path, gradient in jax.tree.leaves_with_path(gradients):
        tensor = tensors
        for key in path:
            tensor = tensor[getattr(key, "key", getattr(key, "idx", None))]
        slope = np.zeros(gradient.shape) if tensor.grad is None else np.asarray(tensor.grad)
        # What the last vertical stack is told goes nowhere, and so do groups that a mask hides.
        assert bool(np.any(slope)) == bool(jnp.any(gradient)), path
        near(gradient, slope)


def near(ours, theirs):
    theirs = np.asarray(theirs)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE * max(1e-3, np.abs(theirs).max()))
