"""Two small habits that let one formula serve NumPy tables and traced JAX arrays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def namespace(t: Any) -> Any:
    """`jax.numpy` for JAX arrays and tracers, NumPy for everything else.

    Grids and tables are NumPy float64, so whatever is derived from them is derived in float64 and is
    rounded once, when it enters a compiled function. The same lines work on traced float32 times.
    """
    return jnp if isinstance(t, jax.Array) else np


def expand(a: Any, x: Any) -> Any:
    """View `a`, of shape x.shape[:a.ndim], with trailing axes of size 1, so that it broadcasts against `x`.

    A scalar stays a scalar; a vector of one value an example lines up with the batch axis.
    """
    a = namespace(a).asarray(a)
    return a.reshape(a.shape + (1,) * (np.ndim(x) - a.ndim)) if a.ndim else a


def on_channels(a: jax.Array, x: jax.Array) -> jax.Array:
    """View `a`, [C], with leading axes of size 1, so that it stands before the channels of `x` [..., C]."""
    return a.reshape((1,) * (x.ndim - 1) + (-1,))


def is_float(x: Any) -> bool:
    """Whether `x` is an array of floats, of any precision."""
    return jnp.issubdtype(x.dtype, jnp.floating)


def at_least_single(tree: Any) -> Any:
    """`tree` with its half-precision arrays in float32; others as they are."""
    return jax.tree.map(lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)) if is_float(x) else x, tree)


def like(tree: Any, other: Any) -> Any:
    """The arrays of `tree` in the dtypes of those of `other`."""
    return jax.tree.map(lambda x, y: x.astype(y.dtype), tree, other)
