"""Two small habits that let one formula serve NumPy tables and traced JAX arrays."""

import jax
import jax.numpy as jnp
import numpy as np


def namespace(t):
    """`jax.numpy` for JAX arrays and tracers, NumPy for everything else.

    Grids and tables are NumPy float64, so whatever is derived from them is derived in float64 and is
    rounded once, when it enters a compiled function. The same lines work on traced float32 times.
    """
    return jnp if isinstance(t, jax.Array) else np


def expand(a, x):
    """View `a`, of shape x.shape[:a.ndim], with trailing axes of size 1, so that it broadcasts against `x`.

    A scalar stays a scalar; a vector of one value an example lines up with the batch axis.
    """
    a = namespace(a).asarray(a)
    return a.reshape(a.shape + (1,) * (np.ndim(x) - a.ndim)) if a.ndim else a
