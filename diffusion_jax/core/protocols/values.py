"""Names for what mypy cannot tell apart: values whose types the field leaves open."""

from typing import Any, TypeAlias

# A time in [0, 1], or an array of them of any shape: of Python, NumPy (float64) or JAX, traced or not.
Time: TypeAlias = Any

# An array, or nested containers of arrays: data [B, ...], parameters, states, plans.
Tree: TypeAlias = Any

# What is believed of x0 given x_t: a distribution (`core.distributions`), or a dictionary of such.
Estimate: TypeAlias = Any

# p(x_s | x_t): a distribution, or a dictionary of such. Every array of it leads with B.
Kernel: TypeAlias = Any
