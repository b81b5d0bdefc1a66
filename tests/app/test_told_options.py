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


def test_a_file_of_one_array_is_told_under_a_name_of_the_users(tmp_path):
    drawn, several = tmp_path / "samples.npz", tmp_path / "several.npz"
    np.savez(drawn, images=np.ones((2, 8, 8, 1), np.uint8))
    np.savez(several, low_res=np.zeros(3), images=np.ones(4))
    found = told.given(options("--condition", f"low_res={drawn}", "--condition", "level=1"))
    assert {name: x.shape for name, x in found.items()} == {"low_res": (2, 8, 8, 1), "level": (1,)}
    assert told.given(options("--condition", f"low_res={several}"))["low_res"].shape == (3,)
    with pytest.raises(InputError, match="has the arrays images, low_res; give a file with one, or with hint"):
        told.given(options("--condition", f"hint={several}"))
    with pytest.raises(InputError, match="cannot read"):
        told.given(options("--condition", f"low_res={tmp_path / 'missing.npz'}"))
    assert told.tag([f"low_res={drawn}", "level=1", str(several)]) == "low_res=samples_level=1_several"


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
