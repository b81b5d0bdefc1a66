"""CLIP and T5 against transformers: every weight drawn at random, outputs, gradients, names and files.

Both compute in float64, where they differ by rounding. What transformers keeps in float32 there (the root mean square
of T5's normalisation) is asserted to 1e-6.
"""

import jax
import numpy as np
import pytest

from diffusion_jax.core.files import json_object
from diffusion_jax.models.encoders import clip, t5
from diffusion_jax.pretrained import encoders, entries, heard
from diffusion_jax.pretrained.families import clip_images

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
transformers = pytest.importorskip("transformers", reason="parity needs transformers: see the extra 'parity'")

pytestmark = pytest.mark.slow

EXACT = 1e-12
SINGLE = 1e-6  # of T5
TEXT = {
    "vocab_size": 100,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 16,
    "projection_dim": 24,
}
VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 8,
    "projection_dim": 24,
}
T5 = {"vocab_size": 72, "d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_heads": 4}
END = 90
# One id is larger than the end, in the middle of the second text: the two ways to pool differ there.
IDS = np.random.default_rng(0).integers(3, END, (3, 16)).astype(np.int32)
IDS[:, 9:] = END
IDS[1, 4] = END + 5
IMAGES = np.random.default_rng(1).normal(size=(2, 16, 16, 3))
MASK = np.arange(16) < np.array([[16], [11], [5]])


def redrawn(model):
    """The model in float64 with every weight redrawn."""
    generator = torch.Generator().manual_seed(0)
    model = model.double().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator, dtype=torch.float64)
            norm = "norm" in name and name.endswith("weight")
            p.copy_(noise / p[0].numel() ** 0.5 if p.ndim > 1 else 0.2 * noise + (1.0 if norm else 0.0))
    return model


def text(kind, **config):
    return redrawn(getattr(transformers, kind)(transformers.CLIPTextConfig(**TEXT | config)))


def state(model):
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


def opened(model, folder):
    """Ours, of the folder that transformers saved."""
    model.save_pretrained(folder)
    encoder = encoders.opened(folder, dtype=np.float64)
    return encoder, encoder.read(None)


def saved(encoder, params, folder, model):
    """What transformers reads of the folder that we saved is what it saved itself."""
    encoder.save(params, folder)
    again = type(model).from_pretrained(folder)
    jax.tree.map(np.testing.assert_array_equal, state(again), state(model))


def ids(array):
    return torch.from_numpy(np.array(array)).long()


def pixels(images):
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


def distance(ours, theirs):
    theirs = theirs.detach().numpy()
    assert ours.shape == theirs.shape
    assert ours.dtype == np.float64
    return float(np.abs(np.asarray(ours) - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize(
    ("activation", "end", "masked"),
    [("quick_gelu", 2, False), ("gelu", END, True), ("quick_gelu", END, False)],
    ids=["at the largest", "at the end, masked", "at the end"],
)
def test_texts_of_clip(activation, end, masked, tmp_path, x64):
    model = text("CLIPTextModelWithProjection", eos_token_id=end, hidden_act=activation)
    encoder, params = opened(model, tmp_path)
    theirs = model(ids(IDS), torch.from_numpy(MASK).long() if masked else None, output_hidden_states=True)
    network = encoder.network.model
    ours = jax.jit(network.apply)({"params": params}, IDS, MASK if masked else None)
    errors = [distance(ours.pooled, theirs.text_embeds), distance(ours.final, theirs.last_hidden_state)]
    errors += [distance(*pair) for pair in zip(ours.states, theirs.hidden_states, strict=True)]
    assert max(errors) < EXACT, errors
    other = (clip.at_first(END) if end == 2 else clip.at_largest)(IDS)
    wrong = ours.final[np.arange(3), other] @ params["projection"]["kernel"]
    assert distance(wrong, theirs.text_embeds) > 0.1
    saved(encoder, params, tmp_path / "ours", model)


def test_pictures_of_clip(tmp_path, x64):
    model = redrawn(transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**VISION)))
    encoder, params = opened(model, tmp_path)
    theirs = model(pixels(IMAGES), output_hidden_states=True)
    ours = jax.jit(encoder.network.model.apply)({"params": params}, IMAGES)
    errors = [distance(ours.embedding, theirs.image_embeds), distance(ours.last, theirs.last_hidden_state)]
    errors += [distance(*pair) for pair in zip(ours.states, theirs.hidden_states, strict=True)]
    assert max(errors) < EXACT, errors
    saved(encoder, params, tmp_path / "ours", model)


def test_logits_and_gradients_of_the_whole(tmp_path, x64):
    config = {"text_config": TEXT | {"eos_token_id": END}, "vision_config": VISION | {"hidden_act": "gelu"}}
    model = redrawn(transformers.CLIPModel(transformers.CLIPConfig(**config, projection_dim=24)))
    encoder, params = opened(model, tmp_path)
    theirs = model(ids(IDS), pixels(IMAGES)).logits_per_image
    weights = np.random.default_rng(2).normal(size=theirs.shape)
    (theirs * torch.from_numpy(weights)).sum().backward()

    def loss(params):
        logits = encoder.network.model.apply({"params": params}, IDS, IMAGES)
        return (logits * weights).sum(), logits

    gradients, ours = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert distance(ours, theirs) < EXACT
    wanted = entries.read(params, encoder.network.entries, {n: p.grad.numpy() for n, p in model.named_parameters()})
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-11), gradients, wanted)
    saved(encoder, params, tmp_path / "ours", model)

    # A half is cut out of it.
    cut = encoder.network.model.text.apply({"params": params["text"]}, IDS).pooled
    features = model.get_text_features(ids(IDS))
    assert distance(cut, getattr(features, "pooler_output", features)) < EXACT


@pytest.mark.parametrize("kind", ["relu", "gated-gelu"])
def test_texts_of_t5(kind, tmp_path, x64):
    model = redrawn(transformers.T5EncoderModel(transformers.T5Config(**T5, feed_forward_proj=kind)))
    encoder, params = opened(model, tmp_path)
    given, mask = np.random.default_rng(3).integers(0, 72, (2, 24)), np.arange(24) < np.array([[24], [7]])
    theirs = model(ids(given), torch.from_numpy(mask).long()).last_hidden_state
    ours = jax.jit(encoder.network.model.apply)({"params": params}, given, mask)
    assert encoder.masked
    assert distance(ours, theirs) < SINGLE
    assert distance(encoder.network.model.apply({"params": params}, given), theirs) > 0.1  # a mask that is not heard
    saved(encoder, params, tmp_path / "ours", model)


@pytest.mark.parametrize(("count", "farthest"), [(32, 128), (8, 20), (12, 100)])
def test_places_of_t5(count, farthest):
    from transformers.models.t5.modeling_t5 import T5Attention

    after = torch.arange(600)[None, :] - torch.arange(600)[:, None]
    wanted = T5Attention._relative_position_bucket(after, True, count, farthest)
    np.testing.assert_array_equal(t5.buckets(600, count, farthest), wanted.numpy())


def test_pictures_are_prepared_as_transformers_does(tmp_path):
    """But for rounding to levels, by Pillow there: at most 1.3 of 255 levels, over the deviation."""
    from PIL import Image
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    theirs = CLIPImageProcessorPil(size={"shortest_edge": 24}, crop_size={"height": 20, "width": 20})
    theirs.save_pretrained(tmp_path)
    picture = np.random.default_rng(0).integers(0, 256, (37, 61, 3), dtype=np.uint8)
    wanted = np.asarray(theirs(Image.fromarray(picture), return_tensors="np")["pixel_values"]).transpose(0, 2, 3, 1)
    prepare = clip_images.preparation(json_object(tmp_path / "preprocessor_config.json"))
    ours = prepare(picture[None] / np.float32(127.5) - 1)
    assert ours.shape == wanted.shape == (1, 20, 20, 3)
    assert np.abs(ours - wanted).max() < 1.3 / 255 / min(clip_images.images.STD)


# ---- Files as other releases wrote them.


def test_the_encoder_of_a_whole_t5(tmp_path):
    """Its decoder is left out; older files name the table of tokens twice."""
    config = transformers.T5Config(**T5, num_decoder_layers=1, decoder_start_token_id=0)
    model = transformers.T5ForConditionalGeneration(config)
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    model.config.architectures = ["T5ForConditionalGeneration"]
    model.config.save_pretrained(tmp_path)
    encoder = encoders.opened(tmp_path)
    assert "encoder.embed_tokens.weight" in model.state_dict()
    params = encoder.read()
    encoder.save(params, tmp_path / "ours")
    assert json_object(tmp_path / "ours" / "config.json")["architectures"] == ["T5EncoderModel"]
    again = transformers.T5EncoderModel.from_pretrained(tmp_path / "ours")
    wanted = state(transformers.T5EncoderModel.from_pretrained(tmp_path))
    jax.tree.map(np.testing.assert_array_equal, state(again), wanted)


def test_shards_that_transformers_writes(tmp_path):
    model = text("CLIPTextModel").float()
    model.save_pretrained(tmp_path, max_shard_size="20KB", variant="fp16")
    assert len(list(tmp_path.glob("*.safetensors"))) > 2
    encoder = encoders.opened(tmp_path, variant="fp16")
    saved(encoder, encoder.read(None), tmp_path / "ours", model)


# ---- Names and values.

CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
OPEN_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "hidden_act": "gelu"}
BIG_G = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 20}
SEEN_L = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
SEEN_H = {"hidden_size": 1280, "intermediate_size": 5120, "num_hidden_layers": 32, "num_attention_heads": 16}
XL = {"d_model": 2048, "d_ff": 5120, "num_layers": 24, "num_heads": 32, "feed_forward_proj": "gated-gelu"}
XXL = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "feed_forward_proj": "gated-gelu"}
LARGE = {"d_model": 1024, "num_layers": 24, "num_heads": 16}
# Class, config, parameters.
PUBLISHED = {
    "CLIP L": ("CLIPTextModel", CLIP_L, 123_060_480),
    "CLIP L, projected": ("CLIPTextModelWithProjection", CLIP_L | {"projection_dim": 768}, 123_650_304),
    "OpenCLIP H of 23 layers": ("CLIPTextModel", OPEN_H | {"num_hidden_layers": 23}, 340_387_840),
    "OpenCLIP H, projected": (
        "CLIPTextModelWithProjection",
        OPEN_H | {"num_hidden_layers": 24, "projection_dim": 1024},
        354_032_640,
    ),
    "bigG": ("CLIPTextModelWithProjection", BIG_G | {"projection_dim": 1280}, 694_659_840),
    "pictures, L/14": (
        "CLIPVisionModelWithProjection",
        SEEN_L | {"patch_size": 14, "projection_dim": 768},
        303_966_208,
    ),
    "pictures, H/14": (
        "CLIPVisionModelWithProjection",
        SEEN_H | {"patch_size": 14, "projection_dim": 1024},
        632_076_800,
    ),
    "T5 base": ("T5EncoderModel", {"d_model": 768, "d_ff": 3072, "num_layers": 12, "num_heads": 12}, 109_628_544),
    "T5 large": ("T5EncoderModel", LARGE | {"d_ff": 4096}, 334_939_648),
    "T5 large, 1.1": ("T5EncoderModel", LARGE | {"d_ff": 2816, "feed_forward_proj": "gated-gelu"}, 341_231_104),
    "T5 XL, 1.1": ("T5EncoderModel", XL, 1_223_527_424),
    "T5 XXL, 1.1": ("T5EncoderModel", XXL, 4_762_310_656),
}
CONFIGS = {"CLIPText": "CLIPTextConfig", "CLIPVision": "CLIPVisionConfig", "T5": "T5Config"}


@pytest.mark.parametrize(("kind", "config", "parameters"), PUBLISHED.values(), ids=PUBLISHED)
def test_names_and_shapes_are_the_published_ones(kind, config, parameters):
    """Their names may lack the prefix, which ours, as written, has."""
    made = next(getattr(transformers, made) for start, made in CONFIGS.items() if kind.startswith(start))
    with torch.device("meta"):
        model = getattr(transformers, kind)(made(**config))
    network = encoders.described(config | {"architectures": [kind]}, model.state_dict())
    found = entries.kinds(network.template(), network.entries)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert {name: shape for name, (_, shape) in found.items()} == shapes
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("kind", [k for k in encoders.KINDS if hasattr(transformers, k) and k in heard.ENCODERS])
def test_what_is_dropped_transformers_does_not_hear(kind):
    """Every value of transformers' own config is known here, and none that is of this network is dropped."""
    config = getattr(transformers, kind).config_class()
    shown = {name: value for name, value in config.to_dict().items() if not name.endswith("_config")}
    encoders.described(shown | {"architectures": [kind]})
    unheard = {name for name in shown if heard.drops(kind, name)}
    assert unheard <= heard._WRITTEN


@pytest.mark.parametrize("kind", ["CLIPTextModelWithProjection", "CLIPVisionModelWithProjection", "T5EncoderModel"])
def test_absent_values_are_those_of_transformers(kind):
    config = getattr(transformers, kind).config_class()
    absent, told = (shown | {"architectures": [kind]} for shown in ({}, config.to_dict()))
    first, second = (encoders.described(config).template() for config in (absent, told))
    assert first == second
