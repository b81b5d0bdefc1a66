"""Ways to see an autoencoder: pairs, walks along its codes, its first filters."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.autoencoding.codes import reconstructed
from diffusion_jax.core import rng
from diffusion_jax.core.protocols import Coder, Decode, Encode, OfParams, Spoil, Tree
from diffusion_jax.data import views
from diffusion_jax.data.views import View
from diffusion_jax.training.experiment import Look

REACH = 3.0  # standard deviations of the prior that a walk goes either way
PLACES = 7  # pictures of a walk


def pairs(code: Coder, decode: Decode, view: View) -> Look:
    """Each example, and what is made of its code: [N, 2, ...]."""

    rebuild = reconstructed(code, decode)

    def draw(params, keys, x):
        return jnp.stack([x, rebuild(params, keys, x).astype(x.dtype)], axis=1)

    return Look(draw, views.rows(view, groups=4))


def restored(spoil: Spoil, code: Coder, decode: Decode, view: View) -> Look:
    """Each example, what a denoising autoencoder is shown of it, and what it makes of that: [N, 3, ...]."""

    rebuild = reconstructed(code, decode)

    def draw(params, keys, x):
        spoil_keys, keys = rng.split(keys, 2)
        shown = jax.vmap(spoil)(spoil_keys, x)
        return jnp.stack([x, shown, rebuild(params, keys, shown).astype(x.dtype)], axis=1)

    return Look(draw, views.rows(view, groups=3))


def traversal(encode: Encode, decode: Decode, view: View, reach: float = REACH) -> Look:
    """Walks along each number of each example's code, the others as they are: [N k, `PLACES`, ...].

    Args:
      encode: `(params, x) -> q(z | x)`, z [k]; a walk begins at its mean.
      decode: `(params, z) -> p(x | z)`.
      view: of x.
      reach: from -reach to reach.
    """
    values = np.linspace(-reach, reach, PLACES)

    def draw(params, keys, x):
        z = encode(params, x).mean
        batch, codes = z.shape
        moved = jnp.eye(codes, dtype=bool)[:, None]
        walks = jnp.where(moved, jnp.asarray(values, z.dtype)[:, None], z[:, None, None])
        pictures = decode(params, walks.reshape(-1, codes)).mean
        return pictures.reshape(batch * codes, PLACES, *x.shape[1:])

    return Look(draw, views.rows(view, groups=1))


def codes(code: Coder, vocab: int, view: View, black: float = 0.0) -> Look:
    """Each example, and its indices as levels of grey, of each level of codes: [N, 1 + levels, H, W, C].

    Args:
      code: keeps indices [B, h, w], or a tree of such, whose sides divide those of the images.
      vocab: index 0 is black, vocab - 1 white.
      view: of x, images in [`black`, 1].
    """

    def draw(params, keys, x):
        def enlarged(kept):
            grey = (black + (1 - black) * kept / max(vocab - 1, 1)).astype(x.dtype)
            side = x.shape[1] // kept.shape[1], x.shape[2] // kept.shape[2]
            return jnp.broadcast_to(grey.repeat(side[0], axis=1).repeat(side[1], axis=2)[..., None], x.shape)

        return jnp.stack([x, *map(enlarged, jax.tree.leaves(code(params, keys, x).kept))], axis=1)

    return Look(draw, views.rows(view, groups=4))


def first_layer(params: Tree) -> jax.Array:
    """The kernel [D, units] of the first layer of `models.autoencoders.mlp`'s encoder, for `filters`."""
    return params["encoder"]["layer_0"]["kernel"]


def only_layer(params: Tree) -> jax.Array:
    """The kernel [D, units] of `models.autoencoders.tied`."""
    return params["encoder"]["kernel"]


def filters(kernel: OfParams, shape: tuple[int, ...], view: View) -> Look:
    """The weights of each first unit as an image, [units, *shape]: 0 is grey, the largest black or white.

    Args:
      kernel: `params -> [D, units]`.
      shape: of an example, D entries.
      view: of images in [0, 1].
    """

    def draw(params, keys, x):
        weights = kernel(params).T
        largest = jnp.abs(weights).max(axis=1, keepdims=True)
        return (0.5 + 0.5 * weights / jnp.maximum(largest, jnp.finfo(weights.dtype).tiny)).reshape(-1, *shape)

    return Look(draw, view)
