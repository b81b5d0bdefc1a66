"""VQ-VAE against a twin in torch with redrawn weights, and quantisers against vector-quantize-pytorch 1.32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.autoencoding import codes, laws, moving, objectives, quantizers
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.models.autoencoders.vq import VQVAE

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
from torch import nn  # noqa: E402

theirs = pytest.importorskip("vector_quantize_pytorch", reason="parity needs it: pip install 'diffusion_jax[parity]'")

pytestmark = pytest.mark.slow

WIDTH, INSIDE, DIM, K, BETA, NOISE = 16, 8, 4, 12, 0.7, 0.3
KEYS = jax.random.split(jax.random.key(0), 2)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.out = nn.Conv2d(WIDTH, INSIDE, 3, padding=1), nn.Conv2d(INSIDE, WIDTH, 1)

    def forward(self, x):
        return x + self.out(torch.relu(self.conv(torch.relu(x))))


class Twin(nn.Module):
    """The paper's section 4.1, of two halvings."""

    def __init__(self):
        super().__init__()
        relu, half = nn.ReLU(), WIDTH // 2
        self.encoder = nn.Sequential(
            *(nn.Conv2d(3, half, 4, 2, 1), relu, nn.Conv2d(half, WIDTH, 4, 2, 1), relu),
            *(nn.Conv2d(WIDTH, WIDTH, 3, padding=1), Residual(), Residual(), relu, nn.Conv2d(WIDTH, DIM, 1)),
        )
        self.decoder = nn.Sequential(
            *(nn.Conv2d(DIM, WIDTH, 3, padding=1), Residual(), Residual(), relu),
            *(nn.ConvTranspose2d(WIDTH, half, 4, 2, 1), relu, nn.ConvTranspose2d(half, 3, 4, 2, 1)),
        )
        self.codes = nn.Parameter(torch.empty(K, DIM))

    def forward(self, x):
        """What is made of x, the indices, and the loss: sums of an example, mean over the batch."""
        z = self.encoder(x).movedim(1, -1)
        indices = torch.cdist(z.reshape(-1, DIM), self.codes).argmin(1).reshape(z.shape[:-1])
        e = self.codes[indices]
        commitment = ((z - e.detach()) ** 2 * BETA + (z.detach() - e) ** 2).sum((1, 2, 3))
        made = self.decoder((z + (e - z).detach()).movedim(-1, 1))
        normal = torch.distributions.Normal(made, NOISE**0.5)
        return made, indices, (commitment - normal.log_prob(x).sum((1, 2, 3))).mean()


def layers(twin):
    """Path of ours -> the twin's layer."""
    encoder, decoder = twin.encoder, twin.decoder
    found = {"encoder/halving_0": encoder[0], "encoder/halving_1": encoder[2], "encoder/conv": encoder[4]}
    found |= {"encoder/vectors": encoder[8], "decoder/conv": decoder[0]}
    found |= {"decoder/doubling_0": decoder[4], "decoder/doubling_1": decoder[6]}
    for half, first in (("encoder", encoder[5:]), ("decoder", decoder[1:])):
        for n in range(2):
            found |= {f"{half}/stack/block_{n}_conv": first[n].conv, f"{half}/stack/block_{n}_out": first[n].out}
    return found


def ours(layer, of):
    """A layer's weights, or their gradients, as ours."""
    kernel = of(layer.weight).numpy()
    order = (2, 3, 0, 1) if isinstance(layer, nn.ConvTranspose2d) else (2, 3, 1, 0)
    kernel = kernel.transpose(order)
    return {"kernel": kernel[0, 0] if kernel.shape[0] == 1 else kernel, "bias": of(layer.bias).numpy()}


def tree(twin, of):
    flat = {path: ours(layer, of) for path, layer in layers(twin).items()} | {"codebook": of(twin.codes).numpy()}
    nested = {}
    for path, leaf in flat.items():
        *sections, last = path.split("/")
        at = nested
        for section in sections:
            at = at.setdefault(section, {})
        at[last] = leaf
    return nested


def test_values_and_gradients_of_a_vq_vae():
    torch.manual_seed(0)
    twin = Twin()
    for parameter in twin.parameters():
        nn.init.normal_(parameter, std=0.2)
    x = torch.rand(2, 3, 16, 8)
    made, indices, value = twin(x)
    value.backward()
    assert len(indices.unique()) > 3
    params, images = tree(twin, lambda p: p.detach()), x.movedim(1, -1).numpy()
    model = VQVAE(3, DIM, 2, WIDTH, INSIDE, 2)

    def call(params, x, method):
        network = {name: params[name] for name in ("encoder", "decoder")}
        return model.apply({"params": network}, x, method=method)

    bottleneck = quantizers.vector_quantized(lambda params: params["codebook"], BETA)
    code = codes.coder(lambda params, x: laws.certain(call(params, x, "encode")), bottleneck)
    loss = objectives.loss(code, lambda params, z: Gaussian(call(params, z, "decode"), NOISE), objectives.beta(0.0))

    @jax.jit
    def all_of_it(params):
        found = code(params, KEYS, images)
        slope = jax.value_and_grad(lambda params: loss(KEYS, params, images, None)[0].mean())
        return found.kept, call(params, found.z, "decode"), *slope(params)

    kept, reconstructed, total, gradients = all_of_it(params)
    np.testing.assert_array_equal(kept, indices)
    np.testing.assert_allclose(reconstructed, made.detach().movedim(1, -1), atol=2e-5)
    np.testing.assert_allclose(total, value.item(), rtol=1e-5)
    expected = tree(twin, lambda p: p.grad)
    assert jax.tree.structure(gradients) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5 * np.abs(b).max())


def test_a_codebook_of_moving_averages_and_a_rotated_gradient():
    """vector-quantize-pytorch's, which too starts at counts of 1; nothing expires, and its commitment is a mean."""
    torch.manual_seed(0)
    quantiser = theirs.VectorQuantize(
        dim=DIM, codebook_size=K, decay=0.9, eps=1e-5, commitment_weight=0.25, threshold_ema_dead_code=0,
        rotation_trick=True,
    )  # fmt: skip
    start = torch.randn(K, DIM)
    for name in ("embed", "embed_avg"):
        getattr(quantiser._codebook, name).copy_(start[None])
    quantiser.train()
    batch, positions = 8, 6
    bottleneck = quantizers.vector_quantized(
        lambda params: moving.codes(params["codebook"]),
        0.25 / (positions * DIM),
        moving.by_average(lambda params: params["codebook"], batch),
        quantizers.rotated,
    )
    keys, slope = jax.random.split(jax.random.key(1), batch), torch.randn(batch, positions, DIM)

    @jax.jit
    def step(codebook, z):
        def whole(codebook, z):
            code = bottleneck({"codebook": codebook}, keys, Gaussian(z))
            return (code.cost + (code.z * slope.numpy()).sum((1, 2))).mean(), code

        (seen, by_z), code = jax.grad(whole, (0, 1), has_aux=True)(codebook, z)
        return code, by_z, moving.moved(codebook, jax.tree.map(lambda mean: batch * mean, seen), 0.9, 0.0)

    codebook = moving.start(jnp.asarray(start))
    for _ in range(5):
        z = torch.randn(batch, positions, DIM, requires_grad=True)
        passed, indices, cost = quantiser(z)
        ((passed * slope).sum() / batch + cost.sum()).backward()
        code, by_z, codebook = step(codebook, z.detach().numpy())
        np.testing.assert_array_equal(code.kept, indices)
        np.testing.assert_allclose(code.z, passed.detach(), atol=2e-6)
        np.testing.assert_allclose(code.cost.mean(), cost.item(), rtol=2e-6)
        np.testing.assert_allclose(by_z, z.grad, atol=2e-6)
        np.testing.assert_allclose(codebook["counts"], quantiser._codebook.cluster_size[0], rtol=2e-6)
        np.testing.assert_allclose(codebook["sums"], quantiser._codebook.embed_avg[0], rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(moving.codes(codebook), quantiser.codebook, rtol=1e-5, atol=1e-6)
    assert np.abs(codebook["sums"] - start.numpy()).max() > 0.1


@pytest.mark.parametrize("levels", [(8, 5, 5, 5), (7, 4, 3)], ids=str)
def test_finite_scalars(levels):
    torch.manual_seed(0)
    quantiser = theirs.FSQ(list(levels))
    z = torch.randn(2, 50, len(levels), requires_grad=True)
    slope = torch.randn(z.shape)
    passed, indices = quantiser(z)
    (passed * slope).sum().backward()

    @jax.jit
    def both(z):
        def found(z):
            code = quantizers.finite_scalar(levels)({}, KEYS, Gaussian(z))
            return (code.z * slope.numpy()).sum(), code

        return jax.grad(found, has_aux=True)(z)

    by_z, code = both(z.detach().numpy())
    np.testing.assert_array_equal(code.kept, indices)
    np.testing.assert_allclose(code.z, passed.detach(), atol=1e-6)
    np.testing.assert_allclose(by_z, z.grad, atol=2e-6)
    np.testing.assert_allclose(
        quantizers.on_grid(levels)({}, code.kept), quantiser.indices_to_codes(indices), atol=1e-6
    )
