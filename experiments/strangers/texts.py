"""Hostile folders of tokenizers, and hostile LoRAs."""

import base64
import json
from pathlib import Path

import numpy as np

from diffusion_jax.pretrained import lora, tokenizers
from diffusion_jax.pretrained.formats import safetensors_file
from experiments.strangers.cases import Case, unusual
from experiments.strangers.weights import entry, safetensors
from tests.pretrained import test_tokenizers as made

DESCRIBED, VOCABULARY, SPIECE, LORA = "tokenizer.json", "vocab.json", "spiece.model", "lora.safetensors"
CONFIG = "tokenizer_config.json"
TEXTS = ["", "a b", "ﬁ " * 1000, "a" * 100_000]
SAID = json.dumps({"extra_ids": 2, "model_max_length": 16}).encode()


def read(folder: Path) -> None:
    """What a pipeline does with a tokenizer's folder, and some texts."""
    found = tokenizers.opened(folder)
    found.encode(TEXTS)
    found.cut(TEXTS[-1])


def read_lora(folder: Path) -> None:
    """Every weight of a network of two layers."""
    found = lora.merged(
        {"conv_in.weight": np.ones((4, 3, 3, 3), np.float32), "linear.weight": np.ones((4, 4), np.float32)},
        [lora.Lora(folder / LORA)],
        "unet",
    )
    lora.check([lora.Lora(folder / LORA)], ["unet"])
    for array in found.values():
        np.asarray(array)


def good_described() -> dict[str, bytes]:
    """A T5's tokenizer.json; its characters stay as they are."""
    return {DESCRIBED: json.dumps(made.T5 | {"normalizer": None}).encode(), CONFIG: SAID}


def good_vocabulary() -> dict[str, bytes]:
    """A CLIP's folder."""
    return {VOCABULARY: json.dumps(made.VOCAB).encode(), "merges.txt": b"#version: 0.2\na b</w>\n", CONFIG: SAID}


def good_spiece() -> dict[str, bytes]:
    """A T5's folder; its characters stay as they are."""
    return {SPIECE: made.trained(*made.PIECES, normalizer=b""), CONFIG: SAID}


def good_lora() -> dict[str, bytes]:
    """Kohya's and peft's, a layer each."""
    header = {
        "lora_unet_conv_in.lora_down.weight": entry([2, 3, 3, 3], 0, 216),
        "lora_unet_conv_in.lora_up.weight": entry([4, 2, 1, 1], 216, 248),
        "lora_unet_conv_in.alpha": entry([], 248, 252),
        "unet.linear.lora_A.weight": entry([1, 4], 252, 268),
        "unet.linear.lora_B.weight": entry([4, 1], 268, 284),
    }
    return {LORA: safetensors(header, np.arange(71, dtype="<f4").tobytes())}


def _described(content: dict) -> bytes:
    return json.dumps(content).encode()


def _words(count: int, length: int) -> list[str]:
    """Words that share little: each takes its own branch of a tree."""
    letters = np.random.default_rng(0).integers(97, 123, (count, length), np.uint8)
    return list({row.tobytes().decode() for row in letters})


def crafted_described() -> list[Case]:
    """Descriptions that would take time or memory if they were run, vocabularies that would, and lies."""
    special = made.T5["model"]["vocab"]

    def pieces(words):
        return _described(made.with_value([*special, *([word, -1.0] for word in words)], made.T5, "model", "vocab"))

    contents = {
        name: lambda _, content=content: json.dumps(content).encode() for name, (content, _) in made.HOSTILE.items()
    }
    contents |= {
        "15 MB of [[],[],...]": lambda _: b'{"model":[' + b"[]," * 5_000_000 + b"[]]}",
        "99 MB": lambda _: b'{"model":"' + b"a" * 99_000_000 + b'"}',
        "deep lists": lambda _: b'{"model":' + b"[" * 15_000_000,
        "deep steps": lambda _: (
            b'{"version":"1.0","normalizer":' + b'{"type":"Sequence","normalizers":[' * 900 + b"]}" * 900 + b"}"
        ),
        "pieces of a megabyte": lambda _: pieces(_words(2**20 // 250, 249)),
        "100,000 pieces": lambda _: pieces(_words(100_000, 9)),
        "a million pieces": lambda _: pieces(map(str, range(900_000))),
        "10,000 tokens beside": lambda _: _described(
            made.with_value([{"id": n, "content": f"<{n}>"} for n in range(10_000)], made.T5, "added_tokens")
        ),
        "a character of a megabyte": lambda _: _described(
            made.with_value(
                base64.b64encode(made.RULES + b"a" * 2**20).decode(), made.T5, "normalizer", "precompiled_charsmap"
            )
        ),
        "half a surrogate": lambda _: json.dumps(made.T5).encode().replace(b"\\u2581a", b"\\ud800"),
    }
    return [
        *(Case(name, good_described() | {DESCRIBED: content}) for name, content in contents.items()),
        *(Case(case.name, {CONFIG: SAID, **case.content}) for case in unusual(DESCRIBED)),
    ]


def crafted_vocabulary() -> list[Case]:
    """Vocabularies that are large, and settings that ask for much."""
    good = good_vocabulary()
    letters = [chr(n) for n in range(97, 123)]
    pairs = [a + b for a in letters for b in letters]
    known = [*letters, *pairs, *(a + b for a in pairs for b in pairs), made.BOS, made.EOS]
    many = json.dumps({word: n for n, word in enumerate(known)}).encode()
    merges = "\n".join([*(" ".join(pair) for pair in pairs), *(f"{a} {b}" for a in pairs for b in pairs)]).encode()
    tokens = [f"<{n}{'x' * 200}>" for n in range(4000)]
    contents = {
        "half a million merges": {VOCABULARY: many, "merges.txt": merges},
        "a million ids": {VOCABULARY: lambda _: json.dumps({str(n): n for n in range(1_100_000)}).encode()},
        "the largest id": {VOCABULARY: json.dumps(made.VOCAB | {"z": 2**63}).encode()},
        "99 MB of merges": {"merges.txt": lambda _: b"a b</w>\n" * 12_000_000},
        "15 MB of merges": {"merges.txt": lambda _: b"a b</w>\n" * 1_900_000},
        "no Unicode": {"merges.txt": b"\xff\xfe"},
        "4000 tokens": {CONFIG: json.dumps({"model_max_length": 16, "extra_special_tokens": tokens}).encode()},
        "a length of a million": {CONFIG: b'{"model_max_length": 1000000}'},
        "a length of 5000 digits": {CONFIG: b'{"model_max_length": ' + b"9" * 5000 + b"}"},
        "code of its own": {CONFIG: b'{"auto_map": {"AutoTokenizer": ["a.py", null]}}', "a.py": b"raise SystemExit"},
        "a million sentinels": {CONFIG: b'{"extra_ids": 1000000}'},
        "a token of nothing": {CONFIG: b'{"pad_token": ""}'},
    }
    return [
        *(Case(name, {**good, **content}) for name, content in contents.items()),
        *(
            Case(f"merges: {case.name}", {**good, "merges.txt": b"", **case.content})
            for case in unusual("merges.txt")[:2]
        ),
    ]


def crafted_spiece() -> list[Case]:
    """Messages that lie about lengths, or are large."""
    contents = {name: content for name, (content, _) in made.SPIECES.items()}
    contents |= {
        "16 MB of empty pieces": lambda _: b"\x0a\x00" * (8 * 2**20 - 1),
        "16 MB of numbers": lambda _: b"\x28\x01" * (8 * 2**20 - 1),
        "messages within messages": lambda _: made.field(1, made.field(1, made.field(1, b"\x0a" * 2**20))),
        "a piece of 15 MB": lambda _: made.trained(*made.PIECES, made.piece("a" * 15_000_000)),
        "100,000 pieces": lambda _: made.trained(*made.PIECES, *map(made.piece, _words(100_000, 9))),
    }
    return [
        *(Case(name, good_spiece() | {SPIECE: content}) for name, content in contents.items()),
        *(Case(case.name, {CONFIG: SAID, **case.content}) for case in unusual(SPIECE)),
    ]


def crafted_lora() -> list[Case]:
    """Ranks without sense, patterns that take forever, and arrays by the hundred thousand."""
    names = ("unet.linear.lora_A.weight", "unet.linear.lora_B.weight")

    def pair(down, up, notes=None, data=b""):
        size = 4 * int(np.prod(down)), 4 * int(np.prod(up))
        header = {names[0]: entry(down, 0, size[0]), names[1]: entry(up, size[0], sum(size))}
        beside = {} if notes is None else {safetensors_file.METADATA: {lora.CONFIG: notes}}
        return safetensors(header | beside, data or bytes(sum(size)))

    pattern = json.dumps({"unet.r": 1, "unet.alpha_pattern": {"(l+i+n*)+x": 2}})
    contents = {
        "a rank of none": lambda _: pair([0, 4], [4, 0]),
        "a rank of a million": lambda _: pair([2**20, 4], [4, 2**20]),
        "other ranks": lambda _: pair([1, 4], [4, 2]),
        "a pattern": lambda _: pair([1, 4], [4, 1], pattern),
        "a deep config": lambda _: pair([1, 4], [4, 1], "[" * 100_000),
        "an alpha of 4000 digits": lambda _: pair([1, 4], [4, 1], '{"unet.lora_alpha": ' + "9" * 4000 + "}"),
        "NaN": lambda _: pair([1, 4], [4, 1], '{"unet.lora_alpha": NaN}'),
        "100,000 empty arrays": lambda _: safetensors(
            {f"lora_unet_{n}.lora_up.weight": entry([0], 0, 0) for n in range(100_000)}
        ),
    }
    return [*(Case(name, {LORA: content}) for name, content in contents.items()), *unusual(LORA)]
