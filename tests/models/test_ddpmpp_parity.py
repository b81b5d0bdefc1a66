"""DDPM++ and NCSN++ with a residual image beside independent ones in PyTorch, of the same redrawn parameters.

Both were compared with NVlabs' SongUNet, too: outputs agree to 3e-7.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.models import DDPMpp, ResidualNCSNpp

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
F = torch.nn.functional
BLOCKS, ATTENDED = 2, (1,)


class Reference:
    """The network as SongUNet computes it, of parameters by our names, on images [B, C, H, W]."""

    def __init__(self, params, smooth: bool):
        named = jax.tree_util.tree_flatten_with_path(params)[0]
        self.params = {"/".join(key.key for key in path): torch.tensor(np.asarray(x)) for path, x in named}
        self.smooth = smooth
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0] if smooth else [1.0, 1.0])
        self.filter = torch.outer(taps, taps)[None, None] / taps.sum() ** 2

    def dense(self, name, x):
        return x @ self.params[f"{name}/kernel"] + self.params[f"{name}/bias"]

    def pointwise(self, name, x):
        return self.dense(name, x.movedim(1, -1)).movedim(-1, 1)

    def conv(self, name, x, padding=1):
        kernel = self.params[f"{name}/kernel"].permute(3, 2, 0, 1)
        return F.conv2d(x, kernel, self.params[f"{name}/bias"], padding=padding)

    def norm(self, name, x):
        return F.group_norm(x, 4, self.params[f"{name}/scale"], self.params[f"{name}/bias"], 1e-6)

    def filtered(self, x, padding):
        return F.conv2d(x, self.filter.tile(x.shape[1], 1, 1, 1), groups=x.shape[1], stride=2, padding=padding)

    def down(self, x):
        return self.filtered(x, int(self.smooth))

    def up(self, x):
        taps = 4 * self.filter.tile(x.shape[1], 1, 1, 1)
        return F.conv_transpose2d(x, taps, groups=x.shape[1], stride=2, padding=int(self.smooth))

    def block(self, name, x, resampled=lambda x: x):
        h = self.conv(f"{name}/conv_0", resampled(F.silu(self.norm(f"{name}/norm_0", x))))
        h = h + self.dense(f"{name}/time", F.silu(self.embedding))[:, :, None, None]
        h = self.conv(f"{name}/conv_1", F.silu(self.norm(f"{name}/norm_1", h)))
        x = resampled(x)
        if f"{name}/shortcut/kernel" in self.params:
            x = self.pointwise(f"{name}/shortcut", x)
        return (x + h) / math.sqrt(2)

    def attention(self, name, x):
        h = self.norm(f"{name}/norm", x)
        query, key, value = (self.pointwise(f"{name}/{which}", h).flatten(2) for which in ("query", "key", "value"))
        weight = torch.softmax(torch.einsum("bcq,bck->bqk", query, key) / math.sqrt(x.shape[1]), dim=-1)
        h = torch.einsum("bqk,bck->bcq", weight, value).reshape(x.shape)
        return (x + self.pointwise(f"{name}/out", h)) / math.sqrt(2)

    def __call__(self, x, time):
        if self.smooth:
            angles = 2 * math.pi * time[:, None] * self.params["encode_time/weight"]
        else:
            angles = time[:, None] * 10000.0 ** -(torch.arange(4) / 3)
        h = torch.cat([angles.sin(), angles.cos()], dim=1)
        h = self.dense("time_embedding/dense_1", F.silu(self.dense("time_embedding/dense_0", h)))
        self.embedding = h
        h, image = self.conv("input_conv", x), x
        skips = [h]
        for level in range(3):
            for i in range(BLOCKS):
                h = self.block(f"down_{level}_block_{i}", h)
                if level in ATTENDED:
                    h = self.attention(f"down_{level}_attention_{i}", h)
                skips.append(h)
            if level < 2:
                h = self.block(f"down_{level}_downsample", h, self.down)
                if self.smooth:  # the convolution first, then the filter, of all that it reaches
                    kernel = self.params[f"down_{level}_image/kernel"].permute(3, 2, 0, 1)
                    image = self.filtered(F.conv2d(image, kernel, padding=2), 0)
                    image = image + self.params[f"down_{level}_image/bias"][:, None, None]
                    h = image = (h + image) / math.sqrt(2)
                skips.append(h)
        h = self.block("middle_block_0", h)
        h = self.block("middle_block_1", self.attention("middle_attention", h))
        for level in (2, 1, 0):
            for i in range(BLOCKS + 1):
                h = self.block(f"up_{level}_block_{i}", torch.cat([h, skips.pop()], dim=1))
            if level in ATTENDED:
                h = self.attention(f"up_{level}_attention_{BLOCKS}", h)
            if level > 0:
                h = self.block(f"up_{level}_upsample", h, self.up)
        return self.conv("output_conv", F.silu(self.norm("output_norm", h)))


@pytest.mark.parametrize(("kind", "smooth"), [(DDPMpp, False), (ResidualNCSNpp, True)])
def test_as_song_unet(kind, smooth):
    rng = np.random.default_rng(0)
    model = kind(channels=8, multipliers=(1, 2, 2), blocks=BLOCKS, dropout=0.0, groups=4)
    x, time = rng.standard_normal((3, 16, 8, 3), np.float32), np.array([-1.5, 0.3, 1.0], np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), x, time)["params"]
    params = jax.tree.map(lambda leaf: rng.normal(0, 0.3, leaf.shape).astype(np.float32), shapes)
    ours = jax.jit(model.apply)({"params": params}, x, time)
    with torch.no_grad():
        theirs = Reference(params, smooth)(torch.tensor(x).permute(0, 3, 1, 2), torch.tensor(time))
    theirs = theirs.permute(0, 2, 3, 1).numpy()
    assert np.std(theirs) > 0.1
    np.testing.assert_allclose(ours, theirs, atol=3e-5 * np.abs(theirs).max())
    # The control: a time that is another.
    assert np.abs(model.apply({"params": params}, x, jnp.flip(time)) - theirs).max() > 1e-3
