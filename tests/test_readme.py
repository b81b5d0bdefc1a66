"""The README's code runs as it stands."""

import re
from pathlib import Path

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_python_example_draws_images():
    (code,) = [code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "sample_fn" in code]
    # Ten steps instead of a thousand; all else is what a reader pastes.
    shorter = code.replace("timesteps.uniform(1000, 1000)", "timesteps.uniform(10, 1000)")
    assert shorter != code
    names = {}
    exec(shorter, names)
    assert names["images"].shape == (16, 8, 8, 1)
    assert float(abs(names["images"]).max()) <= 1 + 1e-6


def test_every_file_it_links_to_exists():
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        if not target.startswith("http"):
            assert (Path(__file__).parent.parent / target).exists(), target
