"""Files of tokenizers made by hand, read without the library that runs them; damaged and hostile ones are refused."""

import base64
import json
import struct
import sys

import numpy as np
import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.tokenizers import byte_pairs, described, opened, save, settings, spiece

BOS, EOS = byte_pairs.BOS, byte_pairs.EOS
VOCAB = {"a": 0, "b</w>": 1, "ab</w>": 2, BOS: 3, EOS: 4}
RULES = struct.pack("<I", 4) + bytes(4) + b"fi\0"  # a tree of nothing, and one replacement


def field(number: int, value: int | float | bytes) -> bytes:
    """A field of protobuf; numbers below 128."""
    if isinstance(value, int):
        return varint(number * 8) + bytes([value])
    if isinstance(value, float):
        return varint(number * 8 + 5) + struct.pack("<f", value)
    return varint(number * 8 + 2) + varint(len(value)) + value


def varint(value: int) -> bytes:
    return bytes([value]) if value < 128 else bytes([value % 128 + 128]) + varint(value // 128)


def piece(content: str, score: float = 0.0, kind: int = 1) -> bytes:
    return field(1, field(1, content.encode()) + field(2, score) + field(3, kind))


UNIGRAM, REPLACING = field(3, 1) + field(40, 2), field(2, RULES)


def trained(*pieces: bytes, trainer=UNIGRAM, normalizer=REPLACING) -> bytes:
    return b"".join(pieces) + field(2, trainer) + field(3, normalizer)


SPECIAL = (piece("<pad>", kind=3), piece("</s>", kind=3), piece("<unk>", kind=2))
PIECES = (*SPECIAL, piece("▁a", -1.5), piece("b", -2.0))
CLIP = {
    "version": "1.0",
    "truncation": {"direction": "Right", "max_length": 77, "strategy": "LongestFirst", "stride": 0},
    "padding": None,
    "added_tokens": [{"id": 3, "content": BOS, "normalized": True}, {"id": 4, "content": EOS, "special": True}],
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": r"\s+"}, "content": " "},
            {"type": "Lowercase"},
        ],
    },
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": byte_pairs.WORDS}, "behavior": "Removed", "invert": True},
            {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True},
        ],
    },
    "post_processor": {"type": "RobertaProcessing", "sep": [EOS, 4], "cls": [BOS, 3], "trim_offsets": False},
    "decoder": None,
    "model": {
        "type": "BPE",
        "unk_token": EOS,
        "end_of_word_suffix": "</w>",
        "vocab": VOCAB,
        "merges": ["a b</w>"],
    },
}
T5 = {
    "version": "1.0",
    "added_tokens": [],
    "normalizer": {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(RULES).decode()},
    "pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "str_rep": "▁", "add_prefix_space": True},
    "post_processor": {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "special_tokens": {"</s>": {"id": "</s>", "ids": [1], "tokens": ["</s>"]}},
    },
    "model": {"type": "Unigram", "unk_id": 2, "vocab": [["<pad>", 0], ["</s>", 0], ["<unk>", 0.0], ["▁a", -1.5]]},
}
OLDER = [
    {"type": "Precompiled", "precompiled_charsmap": T5["normalizer"]["precompiled_charsmap"]},
    {"type": "Strip", "strip_left": False, "strip_right": True},
    {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"},
]


def with_value(value, content: dict, *path) -> dict:
    """`content`, and in it `value` at a path."""
    if not path:
        return value
    return {**content, path[0]: with_value(value, content.get(path[0], {}), *path[1:])}


@pytest.mark.parametrize(
    ("content", "unknown"),
    [(CLIP, None), (T5, 2), (with_value({"type": "Sequence", "normalizers": OLDER}, T5, "normalizer"), 2)],
)
def test_descriptions_of_clip_and_t5_are_read(tmp_path, content, unknown):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    model = described.load(path, {}, extra=2)
    assert model.settings["unk_id"][1:] == (() if unknown is None else (unknown,))
    further = [one.content for one in model.beside.further]
    assert further == ([] if unknown is None else ["<extra_id_1>", "<extra_id_0>"])
    assert {number: one.content for number, one in model.beside.numbered.items()} == (
        {3: BOS, 4: EOS} if unknown is None else {}
    )


HOSTILE = {
    "a pattern that takes forever": (
        with_value({"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Removed"}, CLIP, "pre_tokenizer"),
        "pre_tokenizer = .* is not supported",
    ),
    "a replacement of a megabyte": (
        with_value({"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 2**20}, CLIP, "normalizer"),
        "normalizer = .* is not supported",
    ),
    "rules that replace by a kilobyte": (
        with_value(base64.b64encode(RULES + b"a" * 1000).decode(), T5, "normalizer", "precompiled_charsmap"),
        "rules of characters are damaged",
    ),
    "rules that are cut off": (
        with_value(base64.b64encode(RULES[:6]).decode(), T5, "normalizer", "precompiled_charsmap"),
        "rules of characters are damaged",
    ),
    "rules that are no base64": (
        with_value("ﬁ", T5, "normalizer", "precompiled_charsmap"),
        "precompiled_charsmap is damaged",
    ),
    "steps within steps": (
        with_value({"type": "Sequence", "normalizers": [CLIP["normalizer"]]}, CLIP, "normalizer"),
        "normalizer = .* is not supported",
    ),
    "another model": (with_value({"type": "WordPiece", "vocab": VOCAB}, CLIP, "model"), "'WordPiece' is not known"),
    "no model": (with_value(None, CLIP, "model"), "None is not known"),
    "another version": (with_value("2.0", CLIP, "version"), "version = '2.0'"),
    "a part that is not known": (CLIP | {"surprise": 1}, "surprise = 1 is not supported"),
    "merges at random": (with_value(0.1, CLIP, "model", "dropout"), "dropout = 0.1"),
    "bytes for what is unknown": (with_value(True, T5, "model", "byte_fallback"), "byte_fallback = True"),
    "another end of words": (with_value("", CLIP, "model", "end_of_word_suffix"), "end_of_word_suffix = ''"),
    "another unknown": (with_value("a", CLIP, "model", "unk_token"), "unk_token = 'a'"),
    "another end": (with_value(["a", 0], CLIP, "post_processor", "sep"), "post_processor = .* a text stands as in"),
    "another id of the end": (with_value([EOS, 2], CLIP, "post_processor", "sep"), "post_processor = "),
    "no end": (with_value(None, T5, "post_processor"), "post_processor = None"),
    "cut off at the left": (
        with_value({"direction": "Left"}, CLIP, "truncation"),
        "truncation = .* only the right side",
    ),
    "a token without an id": (with_value([{"content": "c"}], CLIP, "added_tokens"), "None is no id"),
    "an id twice, beside": (
        with_value([{"id": 7, "content": "c"}, {"id": 7, "content": "d"}], CLIP, "added_tokens"),
        "an id comes twice",
    ),
    "an id twice": (with_value(VOCAB | {"c": 2}, CLIP, "model", "vocab"), "an id comes twice"),
    "an id of text": (with_value(VOCAB | {"c": "5"}, CLIP, "model", "vocab"), "'5' is no id"),
    "an id of true": (with_value(VOCAB | {"c": True}, CLIP, "model", "vocab"), "True is no id"),
    "an id of a billion": (with_value(VOCAB | {"c": 10**9}, CLIP, "model", "vocab"), "1000000000 is no id"),
    "pieces of BPE": (with_value([["a", 1]], CLIP, "model", "vocab"), "is no vocabulary"),
    "no vocabulary": (with_value({}, CLIP, "model", "vocab"), "is no vocabulary"),
    "merges of another kind": (with_value([["a", "b", "c"]], CLIP, "model", "merges"), "merges no pair"),
    "merges of numbers": (with_value([[1, 2]], CLIP, "model", "merges"), "merges no pair"),
    "merges of what is not there": (with_value(["a c"], CLIP, "model", "merges"), "needs the token 'c'"),
    "a merge twice": (with_value(["a b</w>"] * 2, CLIP, "model", "merges"), "a pair comes twice"),
    "no pieces": (with_value([], T5, "model", "vocab"), "has 0 pieces"),
    "a piece twice": (with_value([["a", 0], ["a", 0]], T5, "model", "vocab"), "the piece 'a' comes twice"),
    "a piece of a thousand letters": (with_value([["a" * 1000, 0]], T5, "model", "vocab"), "no piece of 1 to 256"),
    "a score that is none": (with_value([["a", None]], T5, "model", "vocab"), "score that is no number"),
    "a score of a thousand digits": (
        with_value([["a", -(10**999)]], T5, "model", "vocab"),
        "score that is no number",
    ),
    "a score of infinity": (with_value([["a", -np.inf]], T5, "model", "vocab"), "score that is no number"),
    "an unknown beyond the pieces": (with_value(4, T5, "model", "unk_id"), "the id 4 of what is unknown"),
    "pieces without scores": (with_value(["a"], T5, "model", "vocab"), "a list of pieces and their scores"),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=HOSTILE)
def test_what_is_neither_clip_nor_t5_is_refused(tmp_path, content, message):
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message) as raised:
        described.load(path, {}, extra=2)
    assert "\n" not in str(raised.value)
    assert len(str(raised.value)) < 600


def test_files_of_sentencepiece_are_read(tmp_path):
    path = tmp_path / "spiece.model"
    path.write_bytes(trained(*PIECES, piece("<mine>", kind=4)))
    model = spiece.load(path, extra=1)
    assert model.settings["unk_id"] == (None, 2)
    flags = {one.content: one.special for one in model.beside.further}
    assert flags == {"<pad>": True, "</s>": True, "<mine>": False, "<extra_id_0>": True}


SPIECES = {
    "empty": (b"", "no file of sentencepiece"),
    "text": (b"a photo of a cat", "no file of sentencepiece"),
    "cut off": (trained(*PIECES)[:-1], "no file of sentencepiece"),
    "a length beyond the end": (b"\x0a\xff\xff\xff\xff\x07", "no file of sentencepiece"),
    "a number without end": (b"\xff" * 100, "no file of sentencepiece"),
    "a piece that is a number": (field(1, 5), "no file of sentencepiece"),
    "a piece that is no text": (field(1, field(1, b"\xff")), "no file of sentencepiece"),
    "merged pairs": (trained(*PIECES, trainer=field(3, 2)), "model_type = 2 is not supported"),
    "bytes": (trained(*PIECES, trainer=field(35, 1) + field(40, 2)), "byte_fallback = 1"),
    "no space before": (trained(*PIECES, normalizer=field(3, 0)), "add_dummy_prefix = 0"),
    "spaces kept": (trained(*PIECES, normalizer=field(4, 0)), "remove_extra_whitespaces = 0"),
    "a piece of a byte": (trained(*PIECES, piece("<0x00>", kind=6)), "of a kind that is not known"),
    "a piece twice": (trained(*PIECES, piece("b")), "'b' comes twice"),
    "a sentinel already": (trained(*PIECES, piece("<extra_id_0>")), "'<extra_id_0>' comes twice"),
    "no score": (trained(*PIECES, piece("c", float("nan"))), "score that is no number"),
    "rules that blow up": (trained(*PIECES, normalizer=field(2, RULES + b"a" * 100)), "rules of characters"),
    "an unknown beyond": (trained(*PIECES, trainer=field(40, 99)), "the id 99"),
    "17 MiB": (bytes(17 * 2**20), "at most 16777216"),
}


@pytest.mark.parametrize(("content", "message"), SPIECES.values(), ids=SPIECES)
def test_damaged_files_of_sentencepiece_are_refused(tmp_path, content, message):
    path = tmp_path / "spiece.model"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        spiece.load(path, extra=1)


def test_files_of_sentencepiece_damaged_at_random_are_read_or_refused(tmp_path):
    """Seed 0; every second truncation, and 200 files with 1 to 3 bytes changed."""
    path, rng, whole, refused = tmp_path / "spiece.model", np.random.default_rng(0), trained(*PIECES), 0
    damaged = [whole[:n] for n in range(0, len(whole), 2)]
    for _ in range(200):
        content = bytearray(whole)
        for at in rng.integers(len(whole), size=rng.integers(1, 4)):
            content[at] = rng.integers(256)
        damaged.append(bytes(content))
    for content in damaged:
        path.write_bytes(content)
        try:
            spiece.load(path, extra=1)
        except InputError:
            refused += 1
    assert len(damaged) // 3 < refused < len(damaged)


def write(folder, **contents):
    for name, content in contents.items():
        file = folder / name.replace("__", ".")
        file.write_text(content if isinstance(content, str) else json.dumps(content))
    return folder


def test_vocabulary_and_merges_are_read(tmp_path):
    for text in ("#version: 0.2\na b</w>\n", "a b</w>", "#version: 0.2\r\na b</w>\r\n"):
        write(tmp_path, vocab__json=VOCAB, merges__txt=text)
        assert byte_pairs.load(tmp_path).around


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({"vocab__json": VOCAB}, "cannot read .*merges.txt"),
        ({"vocab__json": [1], "merges__txt": ""}, "holds a list"),
        ({"vocab__json": '{"a": 1, "a": 2}', "merges__txt": ""}, "a name comes twice"),
        ({"vocab__json": {"a": 1, "b": 1}, "merges__txt": ""}, "an id comes twice"),
        ({"vocab__json": VOCAB, "merges__txt": "a b c"}, "merges no pair"),
        ({"vocab__json": VOCAB, "merges__txt": "a  b"}, "merges no pair"),
    ],
)
def test_vocabularies_without_sense_are_refused(tmp_path, contents, message):
    with pytest.raises(InputError, match=message):
        byte_pairs.load(write(tmp_path, **contents))


def test_special_tokens_are_those_of_the_files_that_count(tmp_path):
    config = {"bos_token": BOS, "pad_token": {"__type": "AddedToken", "content": EOS}, "model_max_length": 77}
    config["extra_special_tokens"] = {}
    write(tmp_path, tokenizer_config__json=config, special_tokens_map__json={"pad_token": "!"})
    write(tmp_path, added_tokens__json={"<mine>": 7, BOS: 3})
    said = settings.read(tmp_path)
    assert (said.length, said.tokens.roles["pad_token"].content) == (77, "!")
    assert said.tokens.numbered == {
        7: settings.special.Special("<mine>", normalized=True, special=False),
        3: settings.special.Special(BOS),
    }
    write(tmp_path, tokenizer_config__json=config | {"added_tokens_decoder": {"9": {"content": "x", "lstrip": True}}})
    said = settings.read(tmp_path)
    assert said.tokens.roles["pad_token"] == settings.special.Special(EOS, normalized=True, special=False)
    assert list(said.tokens.numbered) == [9]
    assert said.tokens.numbered[9].lstrip
    assert settings.read(write(tmp_path, tokenizer_config__json={"model_max_length": 1e30})).length is None


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"do_upper_case": True}, "do_upper_case = True is not supported"),
        ({"auto_map": {"AutoTokenizer": "mine.py"}}, "auto_map = "),
        ({"split_special_tokens": True}, "split_special_tokens = True"),
        ({"sp_model_kwargs": {"enable_sampling": True}}, "sp_model_kwargs = "),
        ({"model_max_length": 0}, "model_max_length = 0"),
        ({"model_max_length": "77"}, "model_max_length = '77'"),
        ({"padding_side": "top"}, "padding_side = 'top'"),
        ({"pad_token": ""}, "no token of 1 to 256"),
        ({"pad_token": 7}, "7 is no token"),
        ({"pad_token": {"content": "a", "lstrip": 1}}, "neither true nor false"),
        ({"pad_token": {"content": "a", "strip": True}}, "is no token"),
        ({"additional_special_tokens": ["a"] * 5000}, "no list of at most 4096"),
        ({"added_tokens_decoder": {"a": "b"}}, "'a' is no id"),
        ({"added_tokens_decoder": {"1": "b", "01": "c"}}, "an id comes twice"),
    ],
)
def test_settings_without_sense_are_refused(tmp_path, config, message):
    with pytest.raises(InputError, match=message):
        settings.read(write(tmp_path, tokenizer_config__json=config))


def test_folders_are_written_byte_for_byte(tmp_path):
    folder = tmp_path / "tokenizer"
    folder.mkdir()
    write(folder, vocab__json=VOCAB, merges__txt="a b</w>\r\n", tokenizer_config__json={}, modeling__py="import os")
    save(folder, tmp_path / "copy")
    copied = {path.name: path.read_bytes() for path in (tmp_path / "copy").iterdir()}
    wanted = ("merges.txt", "tokenizer_config.json", "vocab.json")
    assert copied == {name: (folder / name).read_bytes() for name in wanted}
    with pytest.raises(InputError, match=r"has none of tokenizer\.json, vocab\.json, spiece\.model"):
        save(tmp_path, tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_missing_library_is_said(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    with pytest.raises(InputError, match=r"pip install 'diffusion_jax\[text\]'"):
        opened(tmp_path)
