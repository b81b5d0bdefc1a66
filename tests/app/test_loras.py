"""LoRAs as a person names them."""

import pytest

from diffusion_jax.app import loras
from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained.lora import Lora


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("style.safetensors", "faces.safetensors", "odd:2"):
        (tmp_path / name).touch()


def test_files_and_their_scales(files):
    given = ["style.safetensors:-0.5", "faces.safetensors", "odd:2"]
    assert loras.parsed(given) == (Lora("style.safetensors", -0.5), Lora("faces.safetensors", 1), Lora("odd:2", 1))
    assert loras.parsed(["odd:2:3"]) == (Lora("odd:2", 3),)
    assert loras.tag(given[:2]) == "style--0.5_faces"
    assert loras.tag(None) is None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["style.safetensors:much"], "'much' is no number; give FILE or FILE:SCALE"),
        (["none.safetensors"], "there is no file none.safetensors"),
        ([":2"], "there is no file"),
        (["style.safetensors", "./style.safetensors:2"], "is given twice; give it once"),
    ],
)
def test_what_is_no_lora_is_refused(files, given, message):
    with pytest.raises(InputError, match=message):
        loras.parsed(given)
