"""LPIPS against a twin in torch with redrawn weights, written from the paper and the names of the published files."""

import copy
import functools

import jax
import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.judges import lpips
from diffusion_jax.pretrained.families import lpips as published

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
from torch import nn  # noqa: E402

pytestmark = pytest.mark.slow

TOLERANCE = 1e-5
VGG16 = [64, 64, "pool", 128, 128, "pool", *[256] * 3, "pool", *[512] * 3, "pool", *[512] * 3, "pool"]
SIZES = {"vgg16": 14_714_688, "alexnet": 2_469_696}  # published: convolutions of torchvision's networks
HEADS = {"vgg16": (64, 128, 256, 512, 512), "alexnet": (64, 192, 384, 256, 256)}
COMPARED = {"vgg16": (3, 8, 15, 22, 29), "alexnet": (1, 4, 7, 9, 11)}  # relu1_2, ..., relu5_3; relu1, ..., relu5
OURS = {"vgg16": lpips.vgg16, "alexnet": lpips.alexnet}


def vgg16():
    inside, layers = 3, []
    for width in VGG16:
        if width == "pool":
            layers.append(nn.MaxPool2d(2))
            continue
        layers += [nn.Conv2d(inside, width, 3, padding=1), nn.ReLU()]
        inside = width
    return layers


def alexnet():
    def conv(*sizes, padding):
        return [nn.Conv2d(*sizes, padding=padding), nn.ReLU()]

    def pool():
        return nn.MaxPool2d(3, stride=2)

    first = [*conv(3, 64, 11, 4, padding=2), pool(), *conv(64, 192, 5, padding=2), pool()]
    last = [*conv(192, 384, 3, padding=1), *conv(384, 256, 3, padding=1), *conv(256, 256, 3, padding=1)]
    return first + last


class Twin(nn.Module):
    def __init__(self, name):
        super().__init__()
        self.features = nn.Sequential(*{"vgg16": vgg16, "alexnet": alexnet}[name]())
        self.heads = nn.ParameterList(torch.empty(1, width, 1, 1) for width in HEADS[name])
        self.compared = COMPARED[name]

    def depths(self, x):
        mean, deviation = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])  # of ImageNet, for pixels in [0, 1]
        mean, deviation = (torch.tensor(each, dtype=x.dtype)[:, None, None] for each in (mean, deviation))
        x, found = ((x + 1) / 2 - mean) / deviation, []
        for i, layer in enumerate(self.features):
            x = layer(x)
            if i in self.compared:
                found.append(x / (x.norm(dim=1, keepdim=True) + 1e-10))
        return found

    def forward(self, x, y):
        pairs = zip(self.heads, self.depths(x), self.depths(y), strict=True)
        return sum(nn.functional.conv2d((a - b) ** 2, head).mean((1, 2, 3)) for head, a, b in pairs)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def redrawn(tmp_path_factory):
    """name -> (twin, files of the network and of the heads); the weights keep the scale of what passes."""

    @functools.cache
    def make(name):
        generator = torch.Generator().manual_seed(0)
        twin = Twin(name)
        with torch.no_grad():
            for layer in twin.features:
                if isinstance(layer, nn.Conv2d):
                    layer.weight.normal_(0.0, (2 / layer.weight[0].numel()) ** 0.5, generator=generator)
                    layer.bias.normal_(0.0, 0.1, generator=generator)
            for head in twin.heads:
                head.uniform_(0.0, 1.0, generator=generator)
        folder = tmp_path_factory.mktemp(name)
        features = {f"features.{i}": array for i, array in twin.features.state_dict().items()}
        torch.save(features | {"classifier.0.weight": torch.zeros(2, 3)}, folder / "network.pth")
        heads = {f"lin{i}.model.1.weight": head.data for i, head in enumerate(twin.heads)}
        torch.save(heads, folder / "heads.pth")
        return twin.double(), folder / "network.pth", folder / "heads.pth"

    return make


def compared(judge, params, x, y):
    """Distances, and the gradient by x of their sum."""

    def total(x):
        value = judge.apply({"params": params}, x, y)
        return value.sum(), value

    gradient, value = jax.grad(total, has_aux=True)(x)
    return value, gradient


def told(twin, x, y):
    x, y = (torch.from_numpy(each).permute(0, 3, 1, 2).double() for each in (x, y))
    value = twin(x.requires_grad_(), y)
    value.sum().backward()
    return value.detach().numpy(), x.grad.permute(0, 2, 3, 1).numpy()


def off(ours, theirs):
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("name", OURS)
def test_distance_and_gradient(name, redrawn):
    twin, *files = redrawn(name)
    trunk = OURS[name]()
    params = published.load(*files, trunk)
    assert sum(x.size for x in jax.tree.leaves(params["trunk"])) == SIZES[name]
    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, (2, 35, 40, 3)).astype(np.float32)
    y = (x + 0.3 * rng.standard_normal(x.shape)).astype(np.float32)
    ours = jax.jit(compared, static_argnums=0)(lpips.Lpips(trunk), params, x, y)
    for a, b in zip(ours, told(twin, x, y), strict=True):
        assert off(a, b) < TOLERANCE
    # Control: with another head it is another distance.
    other = copy.deepcopy(twin)
    other.heads[0].data *= 2
    assert off(ours[0], told(other, x, y)[0]) > 1000 * TOLERANCE


def test_with_averages_for_maxima(redrawn):
    """As consistency models' PyTorch code has it."""
    twin, network, heads = redrawn("vgg16")
    judge = lpips.Lpips(lpips.vgg16(lpips.average))
    params = published.load(heads, network, judge.trunk)  # in either order: names tell which is which
    x, y = np.random.default_rng(1).uniform(-1, 1, (2, 1, 32, 32, 3)).astype(np.float32)
    ours = jax.jit(judge.apply)({"params": params}, x, y)
    assert off(ours, told(twin, x, y)[0]) > 1000 * TOLERANCE  # control
    other = copy.deepcopy(twin)
    other.features = nn.Sequential(*(nn.AvgPool2d(2) if isinstance(e, nn.MaxPool2d) else e for e in twin.features))
    assert off(ours, told(other, x, y)[0]) < TOLERANCE


def test_weights_of_another_trunk(redrawn):
    _, *files = redrawn("alexnet")
    with pytest.raises(InputError, match=r"are not weights of this LPIPS \(these are not .* 14716160 parameters"):
        published.load(*files, lpips.vgg16())


@pytest.mark.parametrize("size", [(8, 8), (32, 40), (250, 300)])
def test_images_are_enlarged_as_by_torch(size):
    """Also where one is made smaller: without a filter."""
    x = np.random.default_rng(0).uniform(-1, 1, (2, *size, 3)).astype(np.float32)
    theirs = nn.functional.interpolate(torch.from_numpy(x).permute(0, 3, 1, 2), size=224, mode="bilinear")
    np.testing.assert_allclose(lpips.enlarged(x), theirs.permute(0, 2, 3, 1), atol=1e-5)
    assert lpips.enlarged(np.zeros((1, 256, 300, 3))).shape == (1, 256, 300, 3)
