"""What samples are told, as the command line names it."""

import argparse

import numpy as np
import pytest

from diffusion_jax.app import told
from diffusion_jax.core.errors import InputError


def options(*arguments):
    parser = argparse.ArgumentParser()
    told.add_options(parser)
    parser.add_argument("--label")
    return parser.parse_args(list(map(str, arguments)))


def test_all_that_is_told_comes_by_its_name(tmp_path):
    np.savez(tmp_path / "arrays.npz", hint=np.ones((2, 3)))
    asked = options(
        "--label", "3,8", "--prompt", "a cat", "--condition", "level=1,2", "--condition", tmp_path / "arrays.npz"
    )
    found = told.given(asked)
    assert {name: x.tolist() for name, x in found.items() if name != "hint"} == {
        "label": [3, 8],
        "prompt": ["a cat"],
        "level": [1, 2],
    }
    assert found["hint"].shape == (2, 3)
    assert told.names(asked) == ["condition", "prompt"]
    assert told.names(options()) == []
    with pytest.raises(InputError, match="--condition prompt=1: prompt is given already; give it once"):
        told.given(options("--prompt", "a cat", "--condition", "prompt=1"))


def test_digests_see_each_text_its_order_and_its_end():
    lists = [["ab", "c"], ["a", "bc"], ["c", "ab"], ["ab", "c", "c"], ['ab""c']]
    found = [told.digests({"prompt": np.array(texts, object)})["prompt"] for texts in lists]
    assert len(set(found)) == len(lists)
    assert [said.split(",")[0] for said in found] == ["2", "2", "2", "3", "1"]
    same = told.digests({"prompt": np.array(["ab", "c"], object), "label": np.array(3)})
    assert same["prompt"] == found[0]
    numbers = [np.array([1.0]), np.array([1]), np.array([[1.0]]), np.array([2.0])]
    assert len({told.digests({"x": x})["x"] for x in numbers}) == 4
    # Pictures may be of different sizes.
    pictures = np.empty(2, object)
    pictures[:] = [np.zeros((2, 3, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)]
    assert told.digests({"like": pictures}) != told.digests({"like": pictures[::-1]})
