"""Text goes to tokens and back, is split without overlap, and files that do not serve are named."""

import sys

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.data import text
from diffusion_jax.data.pipeline import batches

POEM = "Der Abend wechselt langsam die Gewänder,\ndie ihm ein Rand von alten Bäumen hält;\n" * 2


@pytest.fixture
def poem(tmp_path):
    path = tmp_path / "poem.txt"
    path.write_text(POEM, encoding="utf-8")
    return path


def everything(source):
    return np.stack([source[i]["tokens"] for i in range(len(source))])


def test_ascii_is_a_newline_and_what_can_be_printed():
    assert text.ASCII.size == 96
    assert text.alphabet() == text.ASCII
    tokens = text.ASCII.encode("\n ~")
    assert tokens.dtype == np.int32
    np.testing.assert_array_equal(tokens, [0, 1, 95])


@pytest.mark.parametrize("symbols", ["za\nä€😀", "a"])
def test_an_alphabet_in_any_order_goes_there_and_back(symbols):
    alphabet = text.Alphabet(symbols)
    tokens = alphabet.encode(symbols[::-1] + symbols)
    np.testing.assert_array_equal(tokens, [*range(len(symbols))][::-1] + [*range(len(symbols))])
    assert alphabet.decode(tokens) == symbols[::-1] + symbols
    assert (alphabet.encode("").size, alphabet.decode([])) == (0, "")


def test_what_an_alphabet_lacks_is_named():
    with pytest.raises(InputError, match="character 'ä' is not in the alphabet"):
        text.ASCII.encode("Bäume")
    for token in (96, -1):
        with pytest.raises(InputError, match=f"token {token} has no character; give tokens from 0 to 95"):
            text.ASCII.decode([0, token])


def test_the_default_text_is_plain_english_on_any_machine():
    source = text.characters(length=100)
    test = everything(text.characters(length=100, split="test"))
    assert 300_000 < len(source) < 600_000
    assert source[0]["tokens"].shape == (100,)
    assert source[0]["tokens"].dtype == np.int32
    assert text.ASCII.decode(source[0]["tokens"]).startswith('The "assert" statement')
    said = text.ASCII.decode(test.ravel())
    assert said.count(" the ") > 300
    assert "  " not in said
    assert "\n\n" not in said
    assert said.count("?") < 20  # signs that ASCII lacks are few


def test_train_begins_at_every_character_and_test_takes_each_once(poem):
    alphabet = text.alphabet(poem)
    assert alphabet.symbols == "".join(sorted(set(POEM)))
    held_out = len(POEM) // 10
    train, test = everything(text.characters(poem, 5)), everything(text.characters(poem, 5, split="test"))
    assert len(train) == len(POEM) - held_out - 4
    for i in (0, 1, len(train) - 1):
        assert alphabet.decode(train[i]) == POEM[i : i + 5]
    assert len(test) == held_out // 5
    assert alphabet.decode(test.ravel()) == POEM[-held_out:][: 5 * len(test)]


def test_pieces_end_where_the_text_does_and_cannot_be_written(poem):
    source = text.characters(poem, 5)
    with pytest.raises(IndexError):
        source[len(source)]
    with pytest.raises(IndexError):
        source[-1]
    assert not source[0]["tokens"].flags.writeable


def test_the_pipeline_takes_it(poem):
    batch = next(batches(text.characters(poem, 5), batch_size=3, seed=0, threads=0))
    assert batch["tokens"].shape == (3, 5)
    assert batch["tokens"].dtype == np.int32


def test_a_file_that_does_not_serve_is_named_in_one_line(tmp_path, poem, monkeypatch):
    latin, many = tmp_path / "latin.txt", tmp_path / "many.txt"
    latin.write_bytes("Bäume".encode("latin-1"))
    many.write_text("".join(map(chr, range(0x4E00, 0x4E00 + 257))), encoding="utf-8")
    for path, length, expected in [
        (tmp_path / "a", 5, f"cannot read {tmp_path / 'a'} (No such file or directory); give a text file"),
        (tmp_path, 5, f"cannot read {tmp_path} (Is a directory)"),
        (latin, 5, "latin.txt is not UTF-8 (byte 1); convert it"),
        (many, 5, "has 257 different characters; give a text of at most 256"),
        (poem, 17, f"has {len(POEM)} characters, fewer than 10 pieces of 17; give more text or a lower length"),
        (None, 10**6, "the default text has"),
        (poem, 0, "pieces of 0 characters"),
    ]:
        with pytest.raises(InputError) as error:
            text.characters(path, length)
        assert expected in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(InputError, match="no split 'valid'; choose one of train, test"):
        text.characters(poem, 5, split="valid")
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    with pytest.raises(InputError, match="without its reference pages"):
        text.characters()
    assert text.alphabet() == text.ASCII  # sampling needs the alphabet only
