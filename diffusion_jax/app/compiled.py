"""A cache of compiled programs, shared by processes."""

import os
from pathlib import Path

import jax


def keep():
    """Have JAX keep what takes over a second to compile in ~/.cache/diffusion_jax (under XDG_CACHE_HOME, if set).

    Command lines do. JAX_COMPILATION_CACHE_DIR names another folder, and JAX_ENABLE_COMPILATION_CACHE=false keeps
    nothing. A program is found again for the same versions, flags and kind of device only, the features of a CPU
    included, so machines may share the folder; it may be deleted at any time. Programs that call the host while they
    run, as those with a progress bar do, are never kept. Where the folder cannot be made nothing is kept.
    """
    if jax.config.jax_compilation_cache_dir is not None:
        return
    try:
        folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "diffusion_jax")
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # a container's user may have no home
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
