"""The scale of CLIP's logits: at most 100, and free to come back."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax

from diffusion_jax.methods import clip
from diffusion_jax.training.optimizers import Optimizer


def moved(transformation, slopes):
    """log_scale after an update of each slope, and of another parameter."""
    params = {"log_scale": jnp.array(4.5), "text": jnp.array(4.5)}
    state, found = transformation.init(params), []
    for slope in slopes:
        update, state = transformation.update(jax.tree.map(lambda x, s=slope: jnp.array(s), params), state, params)
        params = optax.apply_updates(params, update)
        found.append((params["log_scale"], params["text"]))
    return np.asarray(found).T


def test_the_scale_stops_at_100_and_comes_back():
    """The control, which is not bounded, passes it and is still beyond when the other is back."""
    slopes = (-0.1, -0.1, -1.0, 0.25)
    scale, rest = moved(clip.bounded(Optimizer(optax.sgd(1.0))).transformation, slopes)
    most = math.log(100)
    np.testing.assert_allclose(scale, [4.6, most, most, most - 0.25], rtol=1e-6)
    np.testing.assert_allclose(rest, [4.6, 4.7, 5.7, 5.45], rtol=1e-6)
    control, _ = moved(optax.sgd(1.0), slopes)
    assert (control[1:] > most).all()
