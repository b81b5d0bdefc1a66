"""Several things at once: a process for each leaf of a dictionary, an image and its label for instance."""

import jax
from jax.tree_util import Partial

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.protocols import Tree
from diffusion_jax.diffusion.processes.core import Process


class Joint(dict):
    """Kernels side by side, independent given the estimate."""

    def sample(self, key: jax.Array) -> Tree:
        """One draw of each, from keys of their own."""
        keys = jax.random.split(key, len(self))
        return {name: self[name].sample(k) for name, k in zip(sorted(self), keys, strict=True)}

    def log_prob(self, x: Tree) -> Tree:
        """Log probability of each entry of each."""
        return {name: kernel.log_prob(x[name]) for name, kernel in self.items()}


jax.tree_util.register_pytree_with_keys(
    Joint,
    lambda joint: (tuple((jax.tree_util.DictKey(k), joint[k]) for k in sorted(joint)), tuple(sorted(joint))),
    lambda names, kernels: Joint(zip(names, kernels, strict=True)),
)


def product(**processes: Process) -> Process:
    """A process on dictionaries with a leaf for each of `processes`; all share the time.

    Forward they are independent. Backward they meet in the network, which sees all of them: its estimate is a
    dictionary of estimates, and the kernel is a `Joint`. `prior` takes a dictionary of shapes.
    """

    def check(tree):
        if set(tree) != set(processes):
            raise InputError(f"this process joins {', '.join(sorted(processes))}, not {', '.join(sorted(tree))}")

    def split(key):
        return dict(zip(sorted(processes), jax.random.split(key, len(processes)), strict=True))

    def corrupt(key, x0, t):
        check(x0)
        keys = split(key)
        both = {name: process.corrupt(keys[name], x0[name], t) for name, process in processes.items()}
        return {name: x for name, (x, _) in both.items()}, {name: noise for name, (_, noise) in both.items()}

    def bridge(t, s):
        bridges = {name: process.bridge(t, s) for name, process in processes.items()}
        return Partial(Partial(_correct, check), bridges)

    def prior(key, shape, t=1.0):
        check(shape)
        keys = split(key)
        return {name: process.prior(keys[name], shape[name], t) for name, process in processes.items()}

    return Process(corrupt, bridge, prior)


def _correct(check, bridges, estimate, x_t) -> Joint:
    check(estimate)
    check(x_t)
    return Joint({name: bridge(estimate[name], x_t[name]) for name, bridge in bridges.items()})
