"""The page of invariants names tests that exist."""

import re
from pathlib import Path

TESTS = Path(__file__).parents[1]


def test_the_tests_that_the_page_names_exist():
    named = re.findall(r"`([a-z_/]+\.py)(?:::(test_\w+))?`", (TESTS / "invariants" / "README.md").read_text())
    assert len(named) > 10
    for path, name in named:
        assert not name or f"def {name}(" in (TESTS / path).read_text(), (path, name)
        assert (TESTS / path).is_file(), path
