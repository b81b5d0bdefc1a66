"""The seams are types: no function is given, or gives back, a function of which nothing is said."""

import ast
from pathlib import Path

import pytest

import diffusion_jax

ROOT = Path(diffusion_jax.__file__).parent


def bare(tree: ast.AST) -> list[int]:
    """The lines on which `Callable` stands without arguments and result, imports aside."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Subscript)}
    names = (node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "Callable")
    return [name.lineno for name in names if id(name) not in said]


def untyped(tree: ast.Module | ast.ClassDef) -> list[int]:
    """The lines of public functions and methods with an argument, `self` aside, that has no annotation."""
    found = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            found += untyped(node)
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            if any(argument.annotation is None and argument.arg not in ("self", "cls") for argument in given):
                found.append(node.lineno)
    return found


@pytest.mark.parametrize("folder", sorted({path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py")}))
def test_arguments_and_functions_that_are_handed_over_have_types(folder):
    files = [ROOT / folder] if folder.endswith(".py") else (ROOT / folder).rglob("*.py")
    trees = {path.relative_to(ROOT): ast.parse(path.read_text()) for path in files}
    found = [f"{path}:{line}" for path, tree in trees.items() for line in bare(tree)]
    assert not found, "name a protocol of diffusion_jax.core.protocols, or spell Callable[[...], ...]"
    assert not [f"{path}:{line}" for path, tree in trees.items() for line in untyped(tree)]


def test_what_has_no_type_is_found():
    assert bare(ast.parse("def f(g: Callable, h: Callable[[int], int]) -> Callable | None: ...")) == [1, 1]
    assert not bare(ast.parse("from collections.abc import Callable\nx: dict[str, Callable[..., int]]"))
    assert untyped(ast.parse("class A:\n  def f(self, x): ...\n\ndef g(*, y=1): ...")) == [2, 4]
    assert not untyped(ast.parse("def f(x: int): ...\n\ndef _g(x): ..."))
