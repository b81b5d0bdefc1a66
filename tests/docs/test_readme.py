"""The README's code runs as it stands, it stays short, and every file that a page links to exists."""

import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text()


@pytest.mark.exhaustive
def test_the_python_example_draws_images():
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "sample_fn" in code]
    # Ten steps instead of a thousand; all else is what a reader pastes.
    shorter = code.replace("timesteps.uniform(1000, 1000)", "timesteps.uniform(10, 1000)")
    assert shorter != code
    names = {}
    exec(shorter, names)
    assert names["images"].shape == (16, 8, 8, 1)
    assert float(abs(names["images"]).max()) <= 1 + 1e-6


def test_it_is_read_in_a_few_minutes():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_file_that_a_page_links_to_exists(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)#]+)\)", prose):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_functions_that_the_architecture_names_exist():
    text = (ROOT / "docs" / "concepts" / "architecture.md").read_text()
    modules = {}
    for path in (ROOT / "diffusion_jax").rglob("*.py"):
        stem = path.parent.name if path.stem == "__init__" else path.stem
        modules[stem] = modules.get(stem, "") + path.read_text()
    del modules["train"]  # of the config's values
    named = set(re.findall(r"`(?:\w+\.)*(\w+)\.(\w+)(?:\(.*?\))?`", text))
    checked = [(modules[module], name) for module, name in named if module in modules and name != "py"]
    assert len(checked) >= 40
    for source, name in checked:
        assert re.search(rf"\b{name}\b", source), name
