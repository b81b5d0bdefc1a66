"""Small networks of tokens in raster order, with weights that hide nothing."""

import jax
import jax.numpy as jnp
import numpy as np

from diffusion_jax.models import GatedPixelCNN, MaskedPixelCNN, PixelSNAIL

KINDS = {
    "GatedPixelCNN": (GatedPixelCNN, {"layers": 6, "side": 3, "first_side": 3}),
    "MaskedPixelCNN": (MaskedPixelCNN, {"layers": 6, "side": 3, "first_side": 3}),
    "PixelSNAIL": (PixelSNAIL, {"blocks": 1, "repeats": 2, "heads": 3, "key_features": 4}),
}


def made(name: str, vocab: int, **fields):
    """A small network of this kind."""
    kind, usual = KINDS[name]
    sizes = {"features": 12, "token_features": 4, "head_features": 12}
    return kind(vocab, **(sizes | usual | fields))


def redrawn(model, x, *cond, seed=0):
    """Parameters for tokens `x`, of which none is zero and no gate is shut."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.asarray(x), None, *cond))["params"]
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan_in = np.prod(leaf.shape[:-1]) if leaf.ndim > 1 else 10
        return jnp.asarray(rng.normal(size=leaf.shape) / np.sqrt(fan_in), leaf.dtype)

    return jax.tree.map(draw, shapes)
