"""The notebook runs from top to bottom on the CPU, with fewer training steps."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

NOTEBOOK = Path(__file__).parent.parent.parent / "experiments" / "digits.ipynb"


@pytest.mark.rare
@pytest.mark.exhaustive
def test_the_notebook_runs_from_top_to_bottom(monkeypatch):
    monkeypatch.setenv("STEPS", "8")
    monkeypatch.setenv("XLA_FLAGS", "")  # one device, as on a laptop
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(NOTEBOOK.parent)}}).execute()
    pictures = [o for c in notebook.cells for o in c.get("outputs", []) if "image/png" in o.get("data", {})]
    assert len(pictures) == 11


@pytest.mark.parametrize("cell", [c for c in nbformat.read(NOTEBOOK, 4).cells if c.cell_type == "markdown"])
def test_no_formula_is_escaped_twice(cell):
    assert "\\\\" not in cell.source
