"""Tokens against transformers, text by text: of each kind of folder that pipelines have had."""

import io
import json
import random
import re

import numpy as np
import pytest

theirs = pytest.importorskip("transformers", reason="parity needs transformers: see the extra 'parity'")
sentencepiece = pytest.importorskip("sentencepiece", reason="parity needs sentencepiece: see the extra 'parity'")
pytest.importorskip("google.protobuf", reason="transformers reads a spiece.model with protobuf")
library = pytest.importorskip("tokenizers", reason="parity needs tokenizers: see the extra 'text'")

from diffusion_jax.core.errors import InputError  # noqa: E402
from diffusion_jax.pretrained import tokenizers  # noqa: E402

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MERGES = ["c a", "ca t</w>", "d o", "do g</w>", "a n", "an d</w>", "Ã ©</w>", "' s</w>", "! !", "!! !</w>"]
EDGES = [
    "",
    " ",
    "\n\t \u3000\u00a0",
    "a photo of a cat",
    "  Two   spaces,\nand a line ",
    "CAT Dog aNd",
    "wow!",
    "!!!",
    "! ! !!cat!!dog!",
    "it's we'll they've I'D can't 'tis rock'n'roll",
    "café cafe\u0301 CAFÉ",
    "naïve Ångström \u212bngstro\u0308m",
    "ΟΔΥΣΣΕΥΣ Σ ΑΣ, ΣΑΣ",
    "İstanbul ISTANBUL ı",
    "straße STRASSE ẞ",
    "👍🏽 👩‍👩‍👧‍👦 🇨🇦",
    "猫と犬の写真 고양이 แมว",
    "مرحبا שלום नमस्ते",
    "12345 1.5e-3 ½ ² ⅷ",
    "ﬁne ﬃ ﷺ ＣＡＴ",
    "a\u0000b\ufeffc\u200bd\u00ade",
    "\u0301\u0308 leading marks",
    "“curly” ‘quotes’ – dash — &amp; <b>",
    f"a {EOS} b{BOS}c",
    f"{EOS}{EOS} {EOS.upper()} <|endoftext|",
    "a </s> b</s>c <pad> <unk> <extra_id_0><extra_id_9> < / s >",
    "▁cat ▁ ▁▁ a▁b",
    "x" * 300,
    "cat and dog " * 40,
    "猫" * 60 + "!",
    "\U0001f600" * 30,
    "cat\u2028dog\u2029and\u0085x",
    "a_b-c/d\\e@f#g$h%i^j&k*l(m)n",
]
RANGES = [(0x20, 0x7F), (0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x600), (0x900, 0xA00), (0x1E00, 0x2100)]
RANGES += [
    (0x2000, 0x2C00),
    (0x3000, 0x3200),
    (0x4E00, 0x5000),
    (0xAC00, 0xAD00),
    (0xFB00, 0xFFFE),
    (0x1F300, 0x1F700),
]
WORDS = ["cat", "dog", "and", " ", "!", "'s", EOS, "</s>", "<extra_id_3>", "\n"]


def strings(count: int) -> list[str]:
    """Random Unicode: letters of a few ranges, and words between them. Seed 0."""
    draw = random.Random(0)

    def part() -> str:
        low, high = draw.choice(RANGES)
        return draw.choice(WORDS) if draw.random() < 0.3 else chr(draw.randrange(low, high))

    return ["".join(part() for _ in range(draw.randrange(1, 25))) for _ in range(count)]


TEXTS = EDGES + strings(1000)


def flags(content: str, **more) -> dict:
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": True, **more}


def clip(folder, config=None, special=None, added=None):
    """A folder of vocab.json and merges.txt: 256 letters, 256 last letters, merges, two special tokens."""
    folder.mkdir()
    letters = sorted(library.pre_tokenizers.ByteLevel.alphabet())
    merged = [merge.replace(" ", "") for merge in MERGES]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *merged, BOS, EOS]
    contents = {
        "vocab.json": {token: number for number, token in enumerate(tokens)},
        "tokenizer_config.json": {"model_max_length": 16, "tokenizer_class": "CLIPTokenizer"} | (config or {}),
        "special_tokens_map.json": special,
        "added_tokens.json": added,
    }
    for name, content in contents.items():
        if content is not None:
            (folder / name).write_text(json.dumps(content))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]))
    return folder


def t5(folder, config=None):
    """A folder of spiece.model, of at most 72 pieces."""
    folder.mkdir()
    model, draw = io.BytesIO(), random.Random(1)
    words = re.split(" ", "a photo of the cat dog and green it's we'll they've wow! Ångström naïve café 123 jumped")
    sentences = [" ".join(draw.choices(words, k=6)) for _ in range(200)]
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(sentences),
        model_writer=model,
        vocab_size=72,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    config = {"extra_ids": 10, "model_max_length": 24, "tokenizer_class": "T5Tokenizer"} | (config or {})
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


OLD = {"bos_token": flags(BOS), "eos_token": flags(EOS), "unk_token": flags(EOS)}
SAID = {name: {"__type": "AddedToken", **token} for name, token in OLD.items()}
SAID |= {"add_prefix_space": False, "do_lower_case": True, "errors": "replace", "name_or_path": "openai/clip"}
NUMBERED = {"522": flags(BOS, special=True), "523": flags(EOS, special=True)}
FOLDERS = {
    "eos pads": lambda path: clip(path, SAID | {"pad_token": EOS}, OLD | {"pad_token": EOS}),
    "! pads": lambda path: clip(path, SAID | {"pad_token": EOS}, OLD | {"pad_token": "!"}),
    "! pads, normalized": lambda path: clip(path, SAID, OLD | {"pad_token": flags("!")}),
    "only the config": lambda path: clip(path, {"pad_token": "!"}),
    "tokens with ids": lambda path: clip(
        path,
        {"added_tokens_decoder": NUMBERED | {"0": flags("!", special=True, normalized=False)}, "pad_token": "!"},
        {"pad_token": "to be ignored"},
    ),
    "a token learned": lambda path: clip(path, SAID, OLD | {"pad_token": "!"}, {"<my-cat>": 524, "cat": 525}),
    "padding that is new": lambda path: clip(path, {"pad_token": "[PAD]"}),
    "from the left": lambda path: clip(path, {"padding_side": "left", "truncation_side": "left"}),
    "saved again": lambda path: saved(theirs.CLIPTokenizer, clip(path, {"pad_token": "!"})),
    "t5": t5,
    "t5, older": lambda path: t5(
        path,
        {
            **{"additional_special_tokens": [f"<extra_id_{n}>" for n in range(10)], "sp_model_kwargs": {}},
            **{"legacy": True, "add_prefix_space": None},
        },
    ),
    "t5, saved again": lambda path: saved(theirs.T5Tokenizer, t5(path)),
}


WHOLE = ("eos pads", "! pads", "t5", "t5, saved again")  # all texts; the others a quarter, which saves seconds


def saved(kind, folder):
    """As transformers of today writes a folder: tokenizer.json and tokenizer_config.json."""
    kind.from_pretrained(folder).save_pretrained(folder / "again")
    assert sorted(path.name for path in (folder / "again").iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    return folder / "again"


@pytest.mark.parametrize("name", FOLDERS)
def test_tokens_are_theirs(tmp_path, name):
    texts = TEXTS if name in WHOLE else TEXTS[:250]
    folder = FOLDERS[name](tmp_path / "tokenizer")
    kind = theirs.T5Tokenizer if "t5" in name else theirs.CLIPTokenizer
    their = kind.from_pretrained(folder)
    ours = tokenizers.opened(folder)
    wanted = their(texts, padding="max_length", truncation=True)
    found = ours.encode(texts)
    assert (found.ids.dtype, found.mask.dtype, found.ids.shape) == (np.int32, bool, (len(texts), ours.length))
    other = np.flatnonzero((found.ids != np.array(wanted["input_ids"])).any(axis=1))
    assert not len(other), [(texts[n], found.ids[n], wanted["input_ids"][n]) for n in other[:3]]
    np.testing.assert_array_equal(found.mask, np.array(wanted["attention_mask"], bool))
    tokenizers.save(folder, tmp_path / "copy")
    assert kind.from_pretrained(tmp_path / "copy")(TEXTS[:50])["input_ids"] == their(TEXTS[:50])["input_ids"]
    assert (ours.size, ours.length) == (max(their.get_vocab().values()) + 1, their.model_max_length)
    assert 0 < found.mask.all(axis=1).sum() < len(texts)
    for text, whole in zip(texts, their(texts, truncation=False)["input_ids"], strict=True):
        assert bool(ours.cut(text)) == (len(whole) > ours.length), text
        assert ours.cut(text) in text


def test_a_length_of_the_pipeline(tmp_path):
    folder = t5(tmp_path / "t5", {"model_max_length": 512})
    their = theirs.T5Tokenizer.from_pretrained(folder)
    ours = tokenizers.opened(folder, length=77)
    wanted = their(TEXTS, padding="max_length", max_length=77, truncation=True)
    np.testing.assert_array_equal(ours.encode(TEXTS).ids, wanted["input_ids"])


def test_what_is_cut_is_told(tmp_path):
    clips = tokenizers.opened(clip(tmp_path / "clip"))
    # 14 tokens stand between begin and end.
    assert clips.cut("cat " * 14) == ""
    assert clips.cut("Cat " * 14 + "and a Dog.") == "and a Dog."
    left = tokenizers.opened(clip(tmp_path / "left", {"truncation_side": "left"}))
    assert left.cut("and a Dog." + " cat" * 14) == "and a Dog."


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"tokenizer_class": "GPT2Tokenizer"}, "tokenizer_class = 'GPT2Tokenizer' is not supported"),
        ({"do_lower_case": False}, "do_lower_case = False"),
        ({"add_prefix_space": True}, "add_prefix_space = True"),
        ({"unk_token": "<nothing>"}, "unk_token = '<nothing>' is not in the vocabulary"),
        ({"model_max_length": None}, "says no model_max_length up to 4096; give a length"),
        ({"model_max_length": 2}, "texts of 2 tokens; 3 to 4096 are possible"),
        ({"added_tokens_decoder": {"7": flags(EOS)}}, "'<|endoftext|>' has the id 7, and 523 in the vocabulary"),
        ({"extra_special_tokens": [f"<{n}>" for n in range(4095)]}, "4097 tokens beside its vocabulary"),
    ],
)
def test_folders_that_make_no_sense_are_refused(tmp_path, config, message):
    with pytest.raises(InputError, match=re.escape(message)):
        tokenizers.opened(clip(tmp_path / "clip", config))


def test_a_length_without_sense_is_refused(tmp_path):
    folder = clip(tmp_path / "clip")
    assert tokenizers.opened(folder, length=4096).length == 4096
    for length in (0, 4097):
        with pytest.raises(InputError, match=f"texts of {length} tokens; 3 to 4096 are possible"):
            tokenizers.opened(folder, length)


def test_texts_that_are_none(tmp_path):
    ours = tokenizers.opened(clip(tmp_path / "clip"))
    assert ours.encode([]).ids.shape == (0, 16)
    for texts, message in [
        (["a", "b" * 100_001], "100001 characters"),
        (["\ud800"], "surrogate"),
        ([None], "a NoneType"),
        ("a cat", "a list of texts"),
    ]:
        with pytest.raises(InputError, match=message) as raised:
            ours.encode(texts)
        assert "\n" not in str(raised.value)
