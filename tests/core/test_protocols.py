"""The seams are types: no function is given, or gives back, a function of which nothing is said."""

import ast
from pathlib import Path

import pytest

import diffusion_jax

ROOT = Path(diffusion_jax.__file__).parent
# Their seams have no types yet.
UNSAID = {"app", "methods", "training", "evaluate.py", "sample.py"}


def bare(source: str) -> list[int]:
    """The lines on which `Callable` stands without arguments and result, imports aside."""
    tree = ast.parse(source)
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "Callable")
    return [name.lineno for name in names if id(name) not in said]


@pytest.mark.parametrize("folder", sorted({path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py")} - UNSAID))
def test_every_function_that_is_handed_over_has_a_type(folder):
    files = [ROOT / folder] if folder.endswith(".py") else (ROOT / folder).rglob("*.py")
    found = [f"{path.relative_to(ROOT)}:{line}" for path in files for line in bare(path.read_text())]
    assert not found, "name a protocol of diffusion_jax.core.protocols, or spell Callable[[...], ...]"


def test_a_bare_callable_is_found():
    assert bare("def f(g: Callable, h: Callable[[int], int]) -> Callable | None: ...") == [1, 1]
    assert not bare("from collections.abc import Callable\nx: dict[str, Callable[..., int]]")
