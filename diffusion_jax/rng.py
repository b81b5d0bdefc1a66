"""Random streams: every key is used once, and depends only on what it is for.

One root key. A stream is `fold_in(fold_in(root, name), step)`, and every example has a key of its own from
its index in the *global* batch. A resumed run therefore draws what the unbroken one would have drawn, and
an image depends neither on the batch size nor on how many devices drew it.
"""

import zlib

import jax
import jax.numpy as jnp


def typed(key):
    """`key` as a typed key array: legacy `uint32` keys (`jax.random.PRNGKey`) are wrapped."""
    return key if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else jax.random.wrap_key_data(key)


def stream(root, name: str, step=0):
    """The key of the stream `name` at `step` (an int, traced or not)."""
    return jax.random.fold_in(jax.random.fold_in(root, zlib.crc32(name.encode())), step)


def per_example(key, indices):
    """Keys [B], one for each of the global example `indices` [B]."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)


def each(keys, data):
    """Fold the same `data` (an int, traced or not) into each of `keys` [B]."""
    return jax.vmap(jax.random.fold_in, (0, None))(keys, data)


def split(keys, num: int):
    """Split each of `keys` [B] into `num`; a tuple of `num` arrays of keys [B]."""
    return tuple(jax.vmap(lambda key: jax.random.split(key, num))(keys).T)
