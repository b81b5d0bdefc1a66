"""The FID's network against a twin in torch, written from the published architecture, with random weights."""

import hashlib

import jax
import numpy as np
import pytest

from diffusion_jax import evaluation
from diffusion_jax.core.errors import InputError
from diffusion_jax.models.judges.inception import Inception, resized
from diffusion_jax.pretrained.families import inception as published

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4
TRUNK = 21_785_568  # weights before the classes: published for Inception v3 without its auxiliary head
HASTY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
SMALL = 107  # pixels: the last blocks still have 2 x 2


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Basic(nn.Module):
    def __init__(self, inside, outside, window, stride=1, padding=0):
        super().__init__()
        self.conv = nn.Conv2d(inside, outside, window, stride=stride, padding=padding, bias=False)
        self.bn = nn.BatchNorm2d(outside, eps=1e-3)

    def forward(self, x):
        return functional.relu(self.bn(self.conv(x)))


def average(x):
    """By its definition: a sum over what there is, divided by how many there are."""
    kernel = torch.ones(x.shape[1], 1, 3, 3, dtype=x.dtype)
    count = functional.conv2d(torch.ones_like(x), kernel, padding=1, groups=x.shape[1])
    return functional.conv2d(x, kernel, padding=1, groups=x.shape[1]) / count


def maximum(x):
    return functional.max_pool2d(x, 3, stride=1, padding=1)


def halved(x):
    return functional.max_pool2d(x, 3, stride=2)


H, V = (1, 7), (7, 1)  # windows in a line


class Block(nn.Module):
    """Branches side by side, each a list of (name, features, window, stride); a stride of 2 goes without padding."""

    def __init__(self, inside, branches, pool, pooled=None):
        super().__init__()
        self.branches, self.pool, self.pooled = [], pool, pooled
        self.outside = inside if pooled is None else pooled
        for branch in branches:
            width, names = inside, []
            for name, features, window, *stride in branch:
                window = (window, window) if isinstance(window, int) else window
                padding = 0 if stride else tuple(n // 2 for n in window)
                setattr(self, name, Basic(width, features, window, *stride, padding=padding))
                width = features
                names.append(name)
            self.branches.append(names)
            self.outside += width
        if pooled is not None:
            self.branch_pool = Basic(inside, pooled, 1)

    def forward(self, x):
        parts = []
        for names in self.branches:
            h = x
            for name in names:
                h = getattr(self, name)(h)
            parts.append(h)
        last = self.pool(x)
        return torch.cat([*parts, last if self.pooled is None else self.branch_pool(last)], dim=1)


def block_a(inside, pooled):
    triple = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
    branches = [[("branch1x1", 64, 1)], [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)], triple]
    return Block(inside, branches, average, pooled)


def block_b(inside):
    triple = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3, 2)]
    return Block(inside, [[("branch3x3", 384, 3, 2)], triple], halved)


def block_c(inside, c):
    long = [("branch7x7dbl_1", c, 1), ("branch7x7dbl_2", c, V), ("branch7x7dbl_3", c, H), ("branch7x7dbl_4", c, V)]
    short = [("branch7x7_1", c, 1), ("branch7x7_2", c, H), ("branch7x7_3", 192, V)]
    return Block(inside, [[("branch1x1", 192, 1)], short, [*long, ("branch7x7dbl_5", 192, H)]], average, 192)


def block_d(inside):
    long = [("branch7x7x3_1", 192, 1), ("branch7x7x3_2", 192, H), ("branch7x7x3_3", 192, V)]
    short = [("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3, 2)]
    return Block(inside, [short, [*long, ("branch7x7x3_4", 192, 3, 2)]], halved)


class BlockE(nn.Module):
    """The block whose branches fork."""

    def __init__(self, inside, pool):
        super().__init__()
        self.pool = pool
        self.branch1x1 = Basic(inside, 320, 1)
        self.branch3x3_1 = Basic(inside, 384, 1)
        self.branch3x3_2a = Basic(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3_2b = Basic(384, 384, (3, 1), padding=(1, 0))
        self.branch3x3dbl_1 = Basic(inside, 448, 1)
        self.branch3x3dbl_2 = Basic(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = Basic(384, 384, (1, 3), padding=(0, 1))
        self.branch3x3dbl_3b = Basic(384, 384, (3, 1), padding=(1, 0))
        self.branch_pool = Basic(inside, 192, 1)

    def forward(self, x):
        short = self.branch3x3_1(x)
        long = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        forks = [self.branch3x3_2a(short), self.branch3x3_2b(short)]
        forks += [self.branch3x3dbl_3a(long), self.branch3x3dbl_3b(long)]
        return torch.cat([self.branch1x1(x), *forks, self.branch_pool(self.pool(x))], dim=1)


class Twin(nn.Module):
    """Szegedy et al. 2015 as ported from TensorFlow; the names of the published file."""

    def __init__(self, last=maximum):
        super().__init__()
        self.Conv2d_1a_3x3 = Basic(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Basic(32, 32, 3)
        self.Conv2d_2b_3x3 = Basic(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Basic(64, 80, 1)
        self.Conv2d_4a_3x3 = Basic(80, 192, 3)
        self.Mixed_5b = block_a(192, 32)
        self.Mixed_5c = block_a(256, 64)
        self.Mixed_5d = block_a(288, 64)
        self.Mixed_6a = block_b(288)
        self.Mixed_6b = block_c(768, 128)
        self.Mixed_6c = block_c(768, 160)
        self.Mixed_6d = block_c(768, 160)
        self.Mixed_6e = block_c(768, 192)
        self.Mixed_7a = block_d(768)
        self.Mixed_7b = BlockE(1280, average)
        self.Mixed_7c = BlockE(2048, last)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x):
        x = halved(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = halved(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6d(self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x))))
        spatial = x[:, :7].permute(0, 2, 3, 1).flatten(1)
        x = self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(self.Mixed_6e(x))))
        features = x.mean((2, 3))
        return {"features": features, "logits": features @ self.fc.weight.T, "spatial": spatial}


@pytest.fixture(scope="module")
def twin():
    """Random weights that keep the scale of what passes; statistics and scales are random too."""
    generator = torch.Generator().manual_seed(0)
    network = Twin().eval()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                scale = (2 / module.weight[0].numel()) ** 0.5
                module.weight.normal_(0.0, scale, generator=generator)
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5, generator=generator)
                module.bias.normal_(0.0, 0.2, generator=generator)
                module.running_mean.normal_(0.0, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
        network.fc.weight.normal_(0.0, 0.05, generator=generator)
        network.fc.bias.normal_(0.0, 1.0, generator=generator)
    return network


@pytest.fixture(scope="module")
def variables(twin):
    return published.read({name: array.numpy() for name, array in twin.state_dict().items()})


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(1).uniform(-1.0, 1.0, (2, SMALL, SMALL, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def ours(variables, images):
    compiled = jax.jit(Inception().apply).lower(variables, images).compile(HASTY)
    return jax.device_get(compiled(variables, images))


def told(network, images):
    with torch.no_grad():
        return {name: x.numpy() for name, x in network(torch.from_numpy(images).permute(0, 3, 1, 2)).items()}


def off(ours, theirs):
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def test_all_outputs(twin, ours, images):
    theirs = told(twin, images)
    assert {name: x.shape for name, x in ours.items()} == {name: x.shape for name, x in theirs.items()}
    for name, x in theirs.items():
        assert off(ours[name], x) < TOLERANCE, name


def test_what_later_became_of_it_is_another_network(twin, ours, images):
    """Control: with an average in the last block, as in torchvision, the same weights give other features."""
    later = Twin(last=average).eval()
    later.load_state_dict(twin.state_dict())
    theirs = told(later, images)
    assert off(ours["features"], theirs["features"]) > 100 * TOLERANCE
    assert off(ours["spatial"], theirs["spatial"]) < TOLERANCE


def test_as_many_weights_as_published():
    variables = published.template()
    sizes = [x.size for x in jax.tree.leaves(variables["params"])]
    assert sum(sizes) - 2048 * 1008 == TRUNK
    assert sum(x.size for x in jax.tree.leaves(variables["batch_stats"])) == 34_432


@pytest.mark.parametrize("size", [32, 64, 299, 300, 500])
def test_resizing_is_tensorflow_s(size):
    """By explicit indices: pixel i of 299 looks at i * (size / 299), without a shift by half a pixel."""
    image = np.random.default_rng(size).integers(0, 256, (1, size, size + 5, 2), np.uint8)

    def rows(x, axis):
        parts = []
        for i in range(299):
            place = i * (x.shape[axis] / 299)
            lower = int(place)
            upper = min(lower + 1, x.shape[axis] - 1)
            parts.append((lower + 1 - place) * x.take(lower, axis) + (place - lower) * x.take(upper, axis))
        return np.stack(parts, axis)

    expected = rows(rows(image.astype(np.float64), 1), 2)
    np.testing.assert_allclose(resized(image, 299), expected, atol=255 * 1e-4)


def test_resizing_has_no_half_pixels():
    """Control: torch's, which puts pixels at half-integers, is another one; without change of size it is the same."""
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    channels = torch.from_numpy(image.astype(np.float32)).permute(0, 3, 1, 2)
    other = functional.interpolate(channels, (299, 299), mode="bilinear", align_corners=False)
    assert np.abs(resized(image, 299) - other.permute(0, 2, 3, 1).numpy()).max() > 10
    np.testing.assert_array_equal(resized(image, 32), image)


def test_from_the_file_to_features(twin, tmp_path, monkeypatch):
    """The whole way at full size, through a file of torch.save, over simulated devices."""
    file = tmp_path / "weights.pth"
    torch.save(twin.state_dict(), file)
    found = hashlib.sha256(file.read_bytes()).hexdigest()
    with pytest.raises(InputError, match=rf"{found}, not 6726825d.*github\.com/mseitzer"):
        evaluation.inception(file)
    monkeypatch.setattr(published, "SHA256", found)
    extractor = evaluation.inception(file)
    assert extractor.sha256 == found
    image = np.random.default_rng(2).integers(0, 256, (1, 40, 50, 3), np.uint8)
    ours = jax.jit(lambda f, x: f(x)).lower(extractor.features, image).compile(HASTY)(extractor.features, image)
    theirs = told(twin, (np.asarray(resized(image, 299)) - 128) / 128)
    assert theirs["spatial"].shape == (1, 2023)
    for name, x in theirs.items():
        assert off(ours[name], x) < TOLERANCE, name


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"cannot read.*pt_inception-2015-12-05-6726825d\.pth"):
        evaluation.inception(tmp_path / "nothing.pth")


def test_grey_images_are_refused(variables):
    extractor = evaluation.Extractor(lambda x: {"features": x}, "Inception", shape=(None, None, 3))
    with pytest.raises(InputError, match="takes any x any x 3"):
        evaluation.extract(extractor, [np.zeros((2, 8, 8, 1), np.uint8)])
