"""An evaluation on one page of HTML, with its pictures inside: nothing is loaded from anywhere."""

import base64
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from diffusion_jax.core import files
from diffusion_jax.data import images

STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
table { border-collapse: collapse }
td, th { padding: .2em .8em .2em 0; text-align: left; border-bottom: 1px solid #ddd }
img { max-width: 100%; image-rendering: pixelated } pre { background: #f6f6f6; padding: 1em; overflow-x: auto }
figure { margin: 1.5em 0 } figcaption { color: #666 }
"""


def write(path: Path, title: str, report: Mapping[str, Any], figures: Sequence[tuple[str, np.ndarray]]) -> None:
    """Write the page, whole or not at all.

    Args:
      path: of the file.
      title: of the page.
      report: with "metrics", name -> number; all of it is shown as JSON at the end.
      figures: (caption, picture uint8 [H, W, C]).
    """
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value:.6g}</td></tr>" for name, value in report["metrics"].items()
    )
    shown = "".join(
        f'<figure><img src="{_inline(picture)}" alt=""><figcaption>{html.escape(caption)}</figcaption></figure>'
        for caption, picture in figures
    )
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{html.escape(title)}</h1><table><tr><th>metric<th></tr>{rows}</table>{shown}"
        f"<h2>Protocol</h2><pre>{html.escape(json.dumps(report, indent=1))}</pre></html>\n"
    )
    files.write(path, lambda file: file.write(page.encode()))


def neighbours(drawn: np.ndarray, known: np.ndarray) -> np.ndarray:
    """Images [N, H, W, C] above the ones of `known` that belong to them, uint8 pictures in rows of ten."""
    rows = []
    for start in range(0, len(drawn), 10):
        for some in (drawn[start : start + 10], known[start : start + 10]):
            missing = min(10, len(drawn)) - len(some)
            rows.append(np.concatenate([some, np.full((missing, *some.shape[1:]), 255, np.uint8)]))
    return images.grid(np.concatenate(rows), columns=min(10, len(drawn)))


def curve(times: Sequence[float], bits: Sequence[float]) -> np.ndarray:
    """A picture of the terms of a bound, bits an entry at each time, on a logarithmic scale."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3.2), dpi=110)
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="t", ylabel="bits an entry", yscale="log")
    axes.plot(times, np.maximum(bits, 1e-12), linewidth=1)
    axes.grid(alpha=0.3)
    figure.tight_layout()
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _inline(picture: np.ndarray) -> str:
    buffer = io.BytesIO()
    images.to_pil(picture).save(buffer, format="PNG")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
