"""Published encoders without transformers: files as its releases wrote them, and what is refused by name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from crafted import dictionary, storage, tensor, zipped
from encoders_tiny import CONFIGS, TEXT, arrays, folder_of

from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import json_object, write_json
from diffusion_jax.models.encoders import clip, images
from diffusion_jax.models.encoders.transformer import gelu, quick_gelu
from diffusion_jax.pretrained import encoders
from diffusion_jax.pretrained.families.clip_images import preparation
from diffusion_jax.pretrained.formats import files


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)
    assert [leaf.dtype for leaf in jax.tree.leaves(a)] == [leaf.dtype for leaf in jax.tree.leaves(b)]


@pytest.mark.parametrize("kind", CONFIGS)
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
def test_a_folder_is_read_and_written(kind, dtype, tmp_path):
    config = CONFIGS[kind] | {"dtype": "float16"}
    weights = arrays(config, dtype)
    encoder = encoders.opened(folder_of(tmp_path / "text_encoder", config, weights).parent)
    params = encoder.read(None)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype(dtype)}
    encoder.save(params, tmp_path / "again")
    again = {name: np.asarray(array) for name, array in files.weights(tmp_path / "again/model.safetensors").items()}
    same(again, weights)
    same(encoders.opened(tmp_path / "again").read(None), params)
    said = json_object(tmp_path / "again" / "config.json")
    written = {"T5ForConditionalGeneration": "T5EncoderModel"}.get(kind, kind)
    assert said == CONFIGS[kind] | {"architectures": [written], "torch_dtype": np.dtype(dtype).name}
    assert encoder.masked == kind.startswith("T5")


@pytest.mark.parametrize("kind", ["CLIPTextModel", "CLIPVisionModel"])
def test_names_of_clip_with_and_without_a_prefix(kind, tmp_path):
    """And the table of positions of old files, which is none of the weights."""
    weights = arrays(CONFIGS[kind])
    wanted = encoders.opened(folder_of(tmp_path / "with", CONFIGS[kind], weights)).read()
    positions = {"embeddings.position_ids": np.arange(8)[None]}
    bare = {name.split("_model.", 1)[1]: array for name, array in weights.items()}
    found = encoders.opened(folder_of(tmp_path / "without", CONFIGS[kind], bare | positions))
    same(found.read(), wanted)
    found.save(wanted, tmp_path / "again")
    assert set(files.weights(tmp_path / "again" / "model.safetensors")) == set(weights)
    prefix = kind.removeprefix("CLIP").removesuffix("Model").lower() + "_model."
    old = {f"{prefix}{name}": array for name, array in positions.items()}
    same(encoders.opened(folder_of(tmp_path / "old", CONFIGS[kind], weights | old)).read(), wanted)


def test_what_a_file_of_t5_may_hold(tmp_path):
    """The decoder is left out, and the table of tokens is there by one name, the other, or both."""
    config = CONFIGS["T5EncoderModel"]
    weights = arrays(config)
    wanted = encoders.opened(folder_of(tmp_path / "first", config, weights)).read()
    table = {"encoder.embed_tokens.weight": weights["shared.weight"]}
    decoder = {"decoder.embed_tokens.weight": weights["shared.weight"], "lm_head.weight": np.ones((20, 16), "f4")}
    both = folder_of(tmp_path / "both", config, weights | table | decoder)
    same(encoders.opened(both).read(), wanted)
    only = {name: array for name, array in (weights | table).items() if name != "shared.weight"}
    same(encoders.opened(folder_of(tmp_path / "second", config, only)).read(), wanted)
    differ = folder_of(tmp_path / "differ", config, weights | {name: 2 * array for name, array in table.items()})
    with pytest.raises(InputError, match=r"encoder.embed_tokens.weight differs from shared.weight"):
        encoders.opened(differ).read()
    with pytest.raises(InputError, match=r"unknown: decode.weight$"):
        encoders.opened(folder_of(tmp_path / "other", config, weights | {"decode.weight": np.ones(2, "f4")}))


def test_openais_archive_is_refused(tmp_path):
    """It is a program of TorchScript."""
    write_json(tmp_path / "config.json", CONFIGS["CLIPModel"])
    content = zipped(
        dictionary({"w": tensor(storage("0", 1), (1,))}), {"0": bytes(4)}, extra=[("constants.pkl", b"")]
    )
    (tmp_path / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(InputError, match="is a TorchScript program; only weights are read"):
        encoders.opened(tmp_path)


# ---- Configs.


def text(**values):
    return encoders.described(CONFIGS["CLIPTextModel"] | values).model


def test_values_of_clip():
    ids = np.array([[5, 9, 3, 3]])
    assert text().pool is clip.at_largest
    assert text(eos_token_id=3).pool(ids) == [2]
    assert (text().activation, text(hidden_act="gelu").activation) == (quick_gelu, gelu)
    assert text(layer_norm_eps=1e-6).epsilon == 1e-6
    assert encoders.described(CONFIGS["CLIPVisionModel"]).model.grid == (2, 2)
    assert text().projection is None
    assert encoders.described(CONFIGS["CLIPTextModelWithProjection"]).model.projection == 6


def test_a_half_that_is_told_twice():
    """Of older files: the second wins, and what it does not say is as by default, whatever the first says."""
    config = CONFIGS["CLIPModel"] | {"text_config_dict": {"hidden_size": 32, "num_attention_heads": 4}}
    found = encoders.described(config).model.text
    assert (found.features, found.heads, found.vocab, found.layers, found.projection) == (32, 4, 49408, 12, 6)


# As transformers of 2022 wrote them: what is about generating text, training and the file itself.
OLD = {
    "_name_or_path": "openai/clip-vit-large-patch14",
    "attention_dropout": 0.0,
    "bad_words_ids": None,
    "bos_token_id": 0,
    "dropout": 0.0,
    "id2label": {"0": "LABEL_0"},
    "initializer_factor": 1.0,
    "length_penalty": 1.0,
    "max_length": 20,
    "model_type": "clip_text_model",
    "output_past": True,
    "pruned_heads": {},
    "return_dict": True,
    "tie_word_embeddings": True,
    "top_k": 50,
    "torch_dtype": "float32",
    "transformers_version": "4.22.0.dev0",
}


@pytest.mark.parametrize("kind", CONFIGS)
def test_old_configs(kind):
    halves = {f"{half}_config": CONFIGS[kind].get(f"{half}_config", {}) | OLD for half in ("text", "vision")}
    old = CONFIGS[kind] | OLD | (halves if kind == "CLIPModel" else {})
    assert encoders.described(old).entries == encoders.described(CONFIGS[kind]).entries


def test_a_text_encoder_that_is_told_what_is_text(tmp_path):
    config = CONFIGS["CLIPTextModel"]
    told = folder_of(tmp_path, config | {"use_attention_mask": True}, arrays(config))
    assert encoders.opened(told).masked


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (
            "CLIPTextModel",
            {"hidden_act": "relu"},
            r"hidden_act = 'relu' is not supported; only 'quick_gelu' or 'gelu'",
        ),
        ("CLIPTextModel", {"num_attention_heads": 3}, r"num_attention_heads = 3 .* a divisor of hidden_size = 16"),
        ("CLIPTextModel", {"eos_token_id": [2, 3]}, r"eos_token_id = \[2, 3\]"),
        ("CLIPTextModel", {"quantization_config": {"bits": 4}}, r"quantization_config = .* not known here"),
        ("CLIPTextModel", {"pruned_heads": {"0": [1]}}, r"pruned_heads = .* only networks that have all heads"),
        ("CLIPTextModel", {"use_attention_mask": "yes"}, r"use_attention_mask = 'yes'"),
        (
            "CLIPTextModel",
            {"architectures": ["BertModel"]},
            r"class 'BertModel' is not known; of use are CLIPTextModel",
        ),
        ("CLIPTextModel", {"architectures": None}, r"class 'None' is not known"),
        ("CLIPVisionModel", {"patch_size": 3}, r"patch_size = 3 .* a divisor of image_size = 8"),
        ("CLIPVisionModel", {"image_size": [8, 8]}, r"image_size = \[8, 8\]"),
        (
            "CLIPModel",
            {"text_config": TEXT | {"hidden_act": "silu"}},
            r"CLIPModel's text_config: hidden_act = 'silu'",
        ),
        ("CLIPModel", {"vision_config": [1]}, r"vision_config = \[1\] .* an object with names is expected"),
        ("T5EncoderModel", {"feed_forward_proj": "gated-silu"}, r"feed_forward_proj = 'gated-silu'"),
        ("T5EncoderModel", {"dense_act_fn": "gelu_new"}, r"dense_act_fn = 'gelu_new' .* only None or 'relu'"),
        ("T5EncoderModel", {"hidden_size": 32}, r"hidden_size = 32"),  # by another name d_model, to transformers
        ("T5EncoderModel", {"relative_attention_max_distance": 8}, r"relative_attention_max_distance = 8"),
    ],
)
def test_values_that_are_not_implemented_are_named(kind, change, message):
    with pytest.raises(InputError, match=message) as raised:
        encoders.described(CONFIGS[kind] | change)
    assert "\n" not in str(raised.value)


def test_how_pictures_are_prepared():
    """By the first files' integers and by the later ones' objects."""
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (1, 12, 9, 3)), np.float32)
    old = {"size": 8, "crop_size": 6, "resample": 3, "feature_extractor_type": "CLIPFeatureExtractor"}
    new = {"size": {"shortest_edge": 8}, "crop_size": {"height": 6, "width": 6}, "data_format": "channels_first"}
    wanted = images.normalised(images.middle(images.resized(x, 8), 6), images.MEAN, images.STD)
    for config in (old, new):
        np.testing.assert_array_equal(preparation(config)(x), wanted)
    other = preparation(new | {"image_mean": [0.5] * 3, "image_std": [0.5] * 3})(x)
    np.testing.assert_allclose(other, images.middle(images.resized(x, 8), 6), atol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"do_center_crop": False}, "do_center_crop = False is not supported; only True"),
        ({"resample": 2}, "resample = 2"),
        ({"rescale_factor": 1.0}, "rescale_factor = 1.0"),
        ({"size": {"height": 8, "width": 8}}, r"size = .* shortest_edge of one length"),
        ({"crop_size": {"height": 8, "width": 6}}, r"crop_size = .* height and width of one length"),
        ({"size": 4, "crop_size": 8}, r"crop_size = 8 .* at most size = 4"),
        ({"image_std": [0, 1, 1]}, r"image_std = \[0, 1, 1\]"),
        ({"do_pad": True}, "do_pad = True is not supported; it is not known here"),
    ],
)
def test_preparations_that_are_not_implemented_are_named(change, message):
    with pytest.raises(InputError, match=message):
        preparation(change)


def test_dtypes_that_are_not_of_use(tmp_path):
    folder = folder_of(tmp_path, CONFIGS["T5EncoderModel"])
    with pytest.raises(InputError, match="overflow float16; take bfloat16"):
        encoders.opened(folder, dtype=np.float16)
    with pytest.raises(InputError, match="an encoder computes in float32, bfloat16, float16, float64, not in int8"):
        encoders.opened(folder, dtype=np.int8)
    assert encoders.opened(folder, dtype=jnp.bfloat16).network.model.dtype == jnp.bfloat16
