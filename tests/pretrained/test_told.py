"""What published networks of texts are told where a person does not say it."""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.pipelines import told
from diffusion_jax.pipelines.prompts import Part, Texts
from diffusion_jax.pipelines.told import Drawn
from diffusion_jax.pretrained.published import shape
from diffusion_jax.pretrained.tokenizers import Tokenizer, Tokens


def condition(scored=None, **given):
    """Of a network with room for 60 numbers beside the time, a size having 4."""
    takes = {"tokens": shape(1, 1, 8), "pooled": shape(1, 36), "time_ids": shape(1, 6)}
    config = {"projection_class_embeddings_input_dim": 60, "addition_time_embed_dim": 4}
    network = SimpleNamespace(example=(None, None, takes))
    heard = told.of_text(config, network, Drawn((8, 8, 4), (64, 96), None, scored))
    texts = {"tokens": np.zeros((1, 5, 8)), "null_tokens": np.zeros((1, 5, 8))}
    return heard.condition(2, texts | given)[0]


def pooled(features):
    return {"pooled": np.zeros((1, features)), "null_pooled": np.zeros((1, features))}


def test_as_many_sizes_as_fit_beside_a_pooled_text():
    found = condition(**pooled(36))
    for name in ("time_ids", "null_time_ids"):
        np.testing.assert_array_equal(found[name], [[64, 96, 0, 0, 64, 96]] * 2)
    found = condition(**pooled(40))  # a refiner's
    np.testing.assert_array_equal(found["time_ids"], [[64, 96, 0, 0, 6.0]] * 2)
    np.testing.assert_array_equal(found["null_time_ids"], [[64, 96, 0, 0, 2.5]] * 2)


def test_a_folder_says_whether_looks_are_told():
    np.testing.assert_array_equal(condition(True, **pooled(40))["time_ids"][0], [64, 96, 0, 0, 6.0])
    np.testing.assert_array_equal(condition(False, **pooled(36))["time_ids"], condition(**pooled(36))["time_ids"])
    for scored, features, said in (
        (True, 36, "= true .* asks for 5 .*room for 6"),
        (False, 40, "= false .* 6 .*for 5"),
    ):
        with pytest.raises(InputError, match="requires_aesthetics_score " + said):
            condition(scored, **pooled(features))


def test_a_size_that_is_given_withholds_nothing():
    found = condition(**pooled(36), time_ids=np.array([[1, 2, 3, 4, 5, 6]]))
    np.testing.assert_array_equal(found["null_time_ids"], found["time_ids"])
    assert condition(**pooled(40), time_ids=np.array([[1, 2, 3, 4, 9.0]]))["null_time_ids"][0, -1] == 2.5


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (pooled(38), "pooled has 38 features; this network is told 40 or 36"),
        (pooled(36) | {"null_pooled": np.zeros((1, 7))}, "null_pooled has 7 features"),
        (pooled(40) | {"time_ids": np.zeros((1, 6))}, "time_ids has 6 numbers; beside this text go 5"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(given, said):
    with pytest.raises(InputError, match=said):
        condition(**given)


def spelled(texts):
    """A letter a token, up to three, after a first one."""
    ids = [[1, *(ord(letter) for letter in text[:3].ljust(3, "\0"))] for text in texts]
    return Tokens(np.array(ids, np.int32), np.array(ids) > 0)


TOKENIZER = Tokenizer(spelled, lambda text: text[3:], 4, 128)


class Sum(NamedTuple):
    """In place of an encoder: what it says of a text is the sum of its ids, and 99."""

    def apply(self, variables, ids):
        return variables["params"] * (ids.sum(1, keepdims=True) + 99.0)


def part(name, steered=True):
    network = SimpleNamespace(model=Sum(), template=lambda: shape())
    encoder = SimpleNamespace(network=network, masked=False, read=lambda: np.float32(2))
    return Part(TOKENIZER, encoder, lambda said, mask: {name: said}, steered)


BOTH = Texts((part("own"), part("prior", steered=False)))


@pytest.mark.parametrize("negatives", [None, ["b"], ["b", "c"]])
@pytest.mark.parametrize("texts", [BOTH, Texts((part("own"),), zeros=True)], ids=["two parts", "zeros"])
def test_encoders_before_a_chain_say_what_they_say_in_its_program(texts, negatives):
    """The empty text withholds what no negative does, and zeros where a pipeline says so."""
    prompts = ["a", "bcd", "a"]
    apart = texts.encoded(prompts, negatives)
    stage = texts.stage({name: (1,) for name in apart})
    together = stage.run(texts.read(), None, texts.told(prompts, negatives))
    for name, x in apart.items():
        np.testing.assert_array_equal(together[name], x[np.arange(3) % len(x)])
    np.testing.assert_array_equal(apart["own"][:, 0], [2 * (97 + 100), 2 * (98 + 99 + 100 + 100), 2 * (97 + 100)])
    if texts is BOTH:
        np.testing.assert_array_equal(apart["null_prior"], np.full((len(negatives or [""]), 1), 200.0))
    usual = 0.0 if texts.zeros else 200.0
    np.testing.assert_array_equal(apart["null_own"][0], [2 * (98 + 100.0) if negatives else usual])


def test_what_withholds_a_text_may_be_read_otherwise():
    """Of the same text as of another, before the chain and in its program."""
    texts = Texts((part("own")._replace(null=lambda said, mask: {"own": -said}),))
    apart = texts.encoded(["a", "b"], ["a"])
    np.testing.assert_array_equal(apart["own"][:, 0], [394.0, 396.0])
    np.testing.assert_array_equal(apart["null_own"], [[-394.0]])
    stage = texts.stage({name: (1,) for name in apart})
    together = stage.run(texts.read(), None, texts.told(["a", "b"], ["a"]))
    np.testing.assert_array_equal(together["own"], apart["own"])
    np.testing.assert_array_equal(together["null_own"], [[-394.0]] * 2)
