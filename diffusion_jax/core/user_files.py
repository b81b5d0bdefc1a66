"""Python files of the user's own, named on the command line and executed."""

import importlib.util
from pathlib import Path
from types import ModuleType

from diffusion_jax.core.errors import InputError


def load(path: str | Path, kind: str, *functions: str, remedy: str) -> ModuleType:
    """Execute the file at `path`; a module that has all `functions`.

    Args:
      path: of the file.
      kind: what the file is, for a person: "config file".
      functions: names that it must define.
      remedy: where such a file is shown, for the message.

    Raises:
      InputError: there is no such file, it cannot be imported, or it lacks a function.
    """
    path = Path(path)
    if not path.is_file():
        near = sorted(p.as_posix() for p in path.parent.glob("*.py")) if path.parent.is_dir() else []
        hint = f"; there are {', '.join(near)}" if near else f"; {remedy}"
        raise InputError(f"there is no {kind} {path}{hint}")
    spec = importlib.util.spec_from_file_location(f"diffusion_jax_{kind.replace(' ', '_')}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError(f"{path} is no Python file; {remedy}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        raise InputError(f"cannot import the {kind} {path}: {error}") from error
    for name in functions:
        if not callable(getattr(module, name, None)):
            raise InputError(f"the {kind} {path} has no function {name}; {remedy}")
    return module
