"""Floating-point operations of a program, and how many a second a machine can do at best.

XLA's own count (`compiled.cost_analysis()["flops"]`) does not see into the library calls that convolutions and
products become on a GPU, and counts the body of a loop once. So they are counted in the jaxpr, where every program
still says what it computes. For the CIFAR-10 network that is 12.4 GFLOP an image; XLA, which leaves zeros of padding
out, says 11.7 on a CPU.
"""

import math
import time
from collections.abc import Callable

from diffusion_jax.models.ops import convolution as conv3x3


def flops(jaxpr) -> int:
    """Operations of the matrix products and convolutions in `jaxpr`, as `jax.make_jaxpr` makes it.

    A multiplication and an addition are two. Zeros of padding count, those between the entries of a dilated input do
    not; all that is elementwise is left out. Every turn of a `scan` counts, and of a `cond` the costliest branch. Of
    what is mapped over devices it is the share of one.

    Raises:
      ValueError: there is a `while` that multiplies matrices, whose turns nobody knows.
    """
    return sum(COUNTS.get(e.primitive.name, _within)(e) for e in getattr(jaxpr, "jaxpr", jaxpr).eqns)


def _within(equation) -> int:
    values = equation.params.values()
    return sum(flops(value) for value in values if hasattr(getattr(value, "jaxpr", value), "eqns"))


def _dot_general(equation) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(left[axis] for axis in contracted)


def _convolution(equation) -> int:
    kernel, params = equation.invars[1].aval.shape, equation.params
    terms = math.prod(kernel) // kernel[params["dimension_numbers"].rhs_spec[0]]
    return 2 * equation.outvars[0].aval.size * terms // math.prod(params["lhs_dilation"])


def _conv3x3(image, result) -> int:
    return 2 * result.aval.size * 9 * image.aval.shape[3]


def _while(equation) -> int:
    if _within(equation):
        raise ValueError("a while loop multiplies matrices: its operations cannot be counted; use lax.scan")
    return 0


COUNTS = {
    "dot_general": _dot_general,
    "conv_general_dilated": _convolution,
    conv3x3.convolution.name: lambda equation: _conv3x3(equation.invars[0], equation.outvars[0]),
    conv3x3.input_gradient.name: lambda equation: _conv3x3(equation.outvars[0], equation.invars[0]),
    conv3x3.kernel_gradient.name: lambda equation: _conv3x3(*equation.invars),
    "scan": lambda equation: equation.params["length"] * flops(equation.params["jaxpr"]),
    "cond": lambda equation: max(map(flops, equation.params["branches"])),
    "while": _while,
}


def best_rate(multiply: Callable, platform: str, repeats: int = 5) -> float:
    """Most operations a second that a product of matrices reached: the measure of utilisation.

    Args:
      multiply: `n -> run`; `run()` multiplies two n x n matrices and waits for the product.
      platform: "cpu" or another; what is large enough depends on it.
    """
    rates = []
    for n in (1024, 2048) if platform == "cpu" else (4096, 8192):
        run = multiply(n)
        run()  # the first compiles
        for _ in range(repeats):
            start = time.perf_counter()
            run()
            rates.append(2 * n**3 / (time.perf_counter() - start))
    return max(rates)
