"""Our U-Net against diffusers' UNet2DModel in the architecture of google/ddpm-cifar10-32, same weights.

Every weight is drawn at random first, since layers that start at zero or one would hide mistakes. In float32
both differ by rounding only: 1e-6 or so, asserted below 1e-4.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from diffusion_jax.models import UNet
from diffusion_jax.pretrained.families import unet2d

pytestmark = pytest.mark.slow

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

TOLERANCE = 1e-4
BATCH, HEIGHT, WIDTH = 2, 16, 32
# Keys that share a constant shift leave the softmax as it is: this gradient is zero but for rounding.
ZERO_GRADIENT = "key/bias"


def diffusers_unet(channels, groups):
    return diffusers.UNet2DModel(
        in_channels=3,
        out_channels=3,
        block_out_channels=channels,
        layers_per_block=2,
        down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=groups,
        norm_eps=1e-6,
        downsample_padding=0,
        flip_sin_to_cos=False,
        freq_shift=1,
        attention_head_dim=None,
        add_attention=True,
        act_fn="silu",
    ).eval()


def randomise(model):
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.ndim > 1:
                p.copy_(noise / p[0].numel() ** 0.5)
            else:
                p.copy_(0.2 * noise + (1.0 if "norm" in name and name.endswith("weight") else 0.0))


def numpy_state(tensors):
    return {name: t.detach().numpy() for name, t in tensors}


def to_torch(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def distance(ours, theirs):
    return np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)


@pytest.fixture(scope="module")
def problem():
    rng = np.random.default_rng(0)
    shape = (BATCH, HEIGHT, WIDTH, 3)
    return {
        "x": rng.normal(size=shape).astype(np.float32),
        "time": np.array([3, 977]),
        "target": rng.normal(size=shape).astype(np.float32),
    }


@pytest.fixture(scope="module")
def theirs(problem):
    """Weights, output and gradients of the mean squared error, in our layout."""
    model = diffusers_unet(channels=(32, 64, 64, 64), groups=8)
    randomise(model)
    out = model(to_torch(problem["x"]), torch.from_numpy(problem["time"])).sample
    ((out - to_torch(problem["target"])) ** 2).mean().backward()
    network = unet2d.unet2d(model.config)

    def converted(tensors):
        return traverse_util.flatten_dict(network.read(numpy_state(tensors)), sep="/")

    return {
        "params": converted(model.named_parameters()),
        "out": out.detach().numpy().transpose(0, 2, 3, 1),
        "gradients": converted((n, p.grad) for n, p in model.named_parameters()),
    }


@pytest.fixture(scope="module")
def ours(problem):
    """params -> output and gradients, both flat; one compilation for the module."""
    model = UNet(channels=32, groups=8)

    def loss(params):
        out = model.apply({"params": params}, problem["x"], problem["time"])
        return jnp.mean((out - problem["target"]) ** 2), out

    compiled = jax.jit(jax.grad(loss, has_aux=True))

    def run(flat):
        with jax.default_matmul_precision("highest"):
            gradients, out = compiled(traverse_util.unflatten_dict(flat, sep="/"))
        return np.asarray(out), traverse_util.flatten_dict(jax.device_get(gradients), sep="/")

    return run


def test_the_trees_have_the_same_leaves(theirs, problem):
    init = UNet(channels=32, groups=8).init
    shapes = jax.eval_shape(init, jax.random.key(0), problem["x"], problem["time"])
    shapes = traverse_util.flatten_dict(shapes["params"], sep="/")
    assert {k: v.shape for k, v in shapes.items()} == {k: v.shape for k, v in theirs["params"].items()}


def test_outputs_and_gradients_equal_diffusers(ours, theirs):
    out, gradients = ours(theirs["params"])
    assert distance(out, theirs["out"]) < TOLERANCE

    for name in [name for name in gradients if name.endswith(ZERO_GRADIENT)]:
        scale = np.linalg.norm(theirs["gradients"][name.replace("key", "query")])
        assert np.linalg.norm(gradients.pop(name)) < TOLERANCE * scale
        assert np.linalg.norm(theirs["gradients"][name]) < TOLERANCE * scale
    errors = {name: distance(g, theirs["gradients"][name]) for name, g in gradients.items()}
    worst = max(errors, key=errors.get)
    print(f"output {distance(out, theirs['out']):.1e}; worst gradient {errors[worst]:.1e} ({worst})")
    assert errors[worst] < TOLERANCE, worst


def swap(params, a, b):
    moved = {a: b, b: a}
    return {"/".join(moved.get(part, part) for part in name.split("/")): v for name, v in params.items()}


WRONG = {
    "query and key swapped": lambda p: swap(p, "query", "key"),
    "first and last block of the way up swapped": lambda p: swap(p, "up_2_block_1", "up_2_block_2"),
    "kernels not transposed": lambda p: {n: np.swapaxes(v, 0, 1) if v.ndim == 4 else v for n, v in p.items()},
    "cosines before sines": lambda p: (
        p | {"time_embedding/dense_0/kernel": np.roll(p["time_embedding/dense_0/kernel"], 16, axis=0)}
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG.keys())
def test_a_wrong_conversion_is_seen(ours, theirs, wrong):
    """Control: one mistake of the kind that ports make exceeds the tolerance, tenfold."""
    out, _ = ours(wrong(theirs["params"]))
    assert distance(out, theirs["out"]) > 10 * TOLERANCE


def test_symmetric_padding_is_seen(problem, theirs):
    """Control: diffusers itself, with padding 1 on every side before its strided convolutions."""
    model = diffusers_unet(channels=(32, 64, 64, 64), groups=8)
    randomise(model)
    for block in model.down_blocks[:-1]:
        block.downsamplers[0].padding = 1
        block.downsamplers[0].conv.padding = (1, 1)
    with torch.no_grad():
        out = model(to_torch(problem["x"]), torch.from_numpy(problem["time"])).sample
    assert distance(out.numpy().transpose(0, 2, 3, 1), theirs["out"]) > 10 * TOLERANCE


def test_full_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = diffusers_unet(channels=(128, 256, 256, 256), groups=32)
    assert sum(p.numel() for p in model.parameters()) == 35_746_307
