"""Methods of diffusers' pipelines whose modules need a package that the tests do without."""

import ast
from pathlib import Path

import diffusers
import torch


def scale_embedding(w: torch.Tensor, features: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What the latent consistency pipeline makes of w = guidance scale - 1: [B] -> [B, features]."""
    folder = Path(diffusers.__file__).parent / "pipelines" / "latent_consistency_models"
    tree = ast.parse((folder / "pipeline_latent_consistency_text2img.py").read_text())
    name = "get_guidance_scale_embedding"
    (method,) = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == name)
    found = {"torch": torch}
    exec(compile(ast.Module([method], []), str(folder), "exec"), found)
    return found[name](None, w, features, dtype)
