"""Functions of arrays that may lie on a mesh of explicit axes, as `jax.make_mesh` makes them by default."""

from collections.abc import Callable
from typing import ParamSpec, TypeVar, cast

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from diffusion_jax.core.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


def on_any_mesh(function: Callable[P, R]) -> Callable[P, R]:
    """`function(*arrays)`, which knows nothing of shardings, where some of the arrays may have one in their type.

    With explicit axes JAX asks of every operation how its result is spread. Within, the compiler decides, as it does
    with automatic axes. Results then come back replicated, in every process alike. Without explicit axes nothing is
    changed.

    Raises:
      InputError: the arrays lie on different meshes.
    """

    def spread(*arrays):
        meshes = {jax.typeof(leaf).sharding.mesh for leaf in jax.tree.leaves(arrays)}
        meshes.add(jax.sharding.get_abstract_mesh())
        meshes = {mesh for mesh in meshes if AxisType.Explicit in mesh.axis_types}
        if not meshes:
            return function(*arrays)
        if len(meshes) > 1:
            raise InputError(f"arrays on {len(meshes)} meshes of explicit axes ({meshes}): put them on one")
        replicated = NamedSharding(meshes.pop(), PartitionSpec())
        return jax.sharding.auto_axes(function, out_sharding=replicated)(*arrays)

    return cast(Callable[P, R], spread)
