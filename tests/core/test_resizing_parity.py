"""Resizing against PyTorch's, in float64."""

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is compared with only where it is installed")

from diffusion_jax.core import resizing  # noqa: E402

pytestmark = pytest.mark.usefixtures("x64")

X = np.random.default_rng(0).normal(size=(2, 6, 10, 2))
SAME = {  # ours, theirs, sizes that both agree on
    "bilinear": (resizing.bilinear, dict(mode="bilinear"), [(12, 20), (24, 13)]),
    "aligned": (resizing.aligned, dict(mode="bilinear", align_corners=True), [(12, 20), (24, 13), (3, 5), (1, 7)]),
    "bicubic": (resizing.bicubic, dict(mode="bicubic", antialias=True), [(12, 20), (24, 13), (3, 5)]),
    "means": (resizing.means, dict(mode="area"), [(3, 5), (2, 2)]),
    "halved": (resizing.means, dict(mode="bilinear"), [(3, 5)]),
}


@pytest.mark.parametrize(("ours", "theirs", "sizes"), SAME.values(), ids=SAME)
def test_each_kind_is_theirs_of_the_name(ours, theirs, sizes):
    for size in sizes:
        expected = torch.nn.functional.interpolate(torch.tensor(X).permute(0, 3, 1, 2), size=size, **theirs)
        np.testing.assert_allclose(ours(jnp.asarray(X), size), expected.permute(0, 2, 3, 1), atol=1e-12)


def test_kinds_of_one_name_differ():
    size = (12, 20)
    plain = torch.nn.functional.interpolate(torch.tensor(X).permute(0, 3, 1, 2), size=size, mode="bicubic")
    assert np.abs(resizing.bicubic(jnp.asarray(X), size) - plain.permute(0, 2, 3, 1).numpy()).max() > 0.1
    assert np.abs(resizing.bilinear(jnp.asarray(X), size) - resizing.aligned(jnp.asarray(X), size)).max() > 0.5
