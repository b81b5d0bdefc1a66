"""NCSN++'s filters; the network is compared with diffusers' in tests/pretrained/test_diffusers_parity.py."""

import numpy as np

from diffusion_jax.models.unets.ncsnpp import smoothly_enlarged, smoothly_halved


def test_filters():
    """Convolution with the outer product of (1, 3, 3, 1), entry by entry; and one is the other's adjoint."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 6, 8, 3)).astype(np.float32), rng.normal(size=(2, 3, 4, 3)).astype(np.float32)
    kernel = np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    wanted = np.zeros_like(y)
    for i, j in np.ndindex(3, 4):
        window = padded[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
        wanted[:, i, j] = (window * kernel[..., None]).sum((1, 2))
    np.testing.assert_allclose(smoothly_halved(x), wanted, atol=1e-6)
    enlarged = smoothly_enlarged(y)
    assert enlarged.shape == x.shape
    np.testing.assert_allclose((enlarged * x).sum(), 4 * (y * wanted).sum(), rtol=1e-5)
    # Where no edge is near, what is constant stays.
    np.testing.assert_allclose(smoothly_enlarged(np.ones((1, 4, 4, 1)))[0, 1:-1, 1:-1, 0], 1.0)
