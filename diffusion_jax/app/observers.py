"""The writers and hooks that a config file gives its runs."""

from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from diffusion_jax.training.writers import tensorboard


def observers(module: ModuleType, config: ConfigDict, folder: Path) -> dict[str, Any]:
    """Those arguments of `training.loop.fit`; TensorBoard and no hook where the file says nothing."""
    return {
        "writers": partial(module.writers, config) if hasattr(module, "writers") else tensorboard,
        "hooks": module.hooks(config, folder) if hasattr(module, "hooks") else (),
    }
