"""Imagen and unCLIP of captioned pictures, told by a T5 and a CLIP of transformers: trained, drawn, refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from diffusion_jax import sample, train
from diffusion_jax.app import cli
from diffusion_jax.core.errors import InputError
from diffusion_jax.methods.text_to_image import readers

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (the extra parity)")
pytest.importorskip("tokenizers", reason="tokenizers is not installed (the extra text)")

import text_tiny  # noqa: E402

pytestmark = pytest.mark.slow

LOOP = "train.batch_size=8 train.steps=2 log.sample_every=0 data.threads=0"
NETWORK = "channels=32 groups=8 multipliers=(1,2) blocks=1 attention_levels=(1,)"
OF_CLIP = "clip.length=16 data.shape=(32,32,3)"
TEXTS = ["a cat", "the dog, asleep"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """t5/ and clip/, as they are published, and pictures/ with texts."""
    root = tmp_path_factory.mktemp("folders")
    text_tiny.t5().save_pretrained(root / "t5" / "text_encoder")
    text_tiny.t5_tokenizer().save_pretrained(root / "t5" / "tokenizer")
    text = text_tiny.encoder().config.to_dict()
    vision = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision |= {"image_size": 16, "patch_size": 8, "projection_dim": 24}
    torch.manual_seed(3)
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
    text_tiny.redrawn(transformers.CLIPModel(config)).save_pretrained(root / "clip")
    text_tiny.tokenizer().save_pretrained(root / "clip")
    rng = np.random.default_rng(0)
    (root / "pictures").mkdir()
    for number in range(4):
        picture = Image.fromarray(rng.integers(0, 255, (72, 80, 3), np.uint8))
        picture.save(root / "pictures" / f"{number}.png")
        (root / "pictures" / f"{number}.txt").write_text(TEXTS[number % 2])
    return root


def given(text, section=""):
    return [f"--config.{section}{value}" for value in text.split()]


def trained(root, name, *more):
    folder = root / "runs" / name
    arguments = ["--config", f"configs/{name}.py", "--workdir", str(folder), f"--config.data.dir={root / 'pictures'}"]
    train.main([*arguments, *given(LOOP), *more])
    return folder


def drawn(folder, *more):
    out = folder / f"out{len(list(folder.iterdir()))}"
    sample.main([f"--workdir={folder}", "--num=2", "--steps=2", "--quiet", f"--out={out}", *more])
    return dict(np.load(out / "samples.npz"))["images"], dict(np.load(out / "condition.npz"))


def section(folder, length):
    return ConfigDict({"folder": str(folder), "length": length, "bfloat16": False})


def test_t5_says_its_last_state_and_nothing_at_padding(root):
    reader = readers.t5(section(root / "t5", 12), "--config.text")
    ids, mask = reader.tokenizer.encode(TEXTS)
    said = reader.says(reader.read(), jnp.asarray(ids), jnp.asarray(mask))
    with torch.no_grad():
        theirs = text_tiny.t5()(torch.tensor(ids), attention_mask=torch.tensor(mask)).last_hidden_state.numpy()
    np.testing.assert_allclose(said["tokens"], theirs * mask[..., None], atol=3e-5)
    assert not mask.all()  # there is padding
    assert {name: x.shape[1:] for name, x in said.items()} == {name: x.shape for name, x in reader.told.items()}


def test_clip_says_embeddings_of_texts_and_pictures(root):
    clip = readers.clip(section(root / "clip", 16), "--config.clip")
    params = clip.reader.read()
    ids, mask = clip.reader.tokenizer.encode(TEXTS)
    pictures = np.random.default_rng(1).uniform(-1, 1, (2, 16, 16, 3)).astype(np.float32)
    model = transformers.CLIPModel.from_pretrained(root / "clip").eval()
    mean, std = (np.array(x, np.float32) for x in (readers.images.MEAN, readers.images.STD))
    with torch.no_grad():
        shown = torch.tensor((((pictures + 1) / 2 - mean) / std).transpose(0, 3, 1, 2))
        theirs = model(input_ids=torch.tensor(ids), pixel_values=shown)
    said = clip.reader.says(params, jnp.asarray(ids), jnp.asarray(mask))
    size = clip.size**0.5
    np.testing.assert_allclose(said["text_embedding"], size * theirs.text_embeds.numpy(), atol=1e-4)
    np.testing.assert_allclose(
        clip.seen(params, jnp.asarray(pictures)), size * theirs.image_embeds.numpy(), atol=1e-4
    )
    assert np.isnan(clip.seen(params, jnp.full((1, 16, 16, 3), jnp.nan))).all()  # as a decoder is told of none


def of_t5(root):
    return [f"--config.text.folder={root / 't5'}", *given("length=12 heads=4", "text.")]


def test_imagen_is_trained_and_draws_by_a_prompt(root):
    base = trained(
        root, "imagen_base_folder", *of_t5(root), "--config.data.shape=(16,16,3)", *given(NETWORK, "model."),
        "--config.train.warmup_steps=0", "--config.train.learning_rate=0.01", "--config.train.ema_decay=0",
    )  # fmt: skip
    pictures, told = drawn(base, "--prompt", *TEXTS)
    assert pictures.shape == (2, 16, 16, 3)
    assert told["ids"].shape == (2, 12)
    (other, same), _ = drawn(base, "--prompt", TEXTS[1], TEXTS[1])
    np.testing.assert_array_equal(same, pictures[1])
    assert (other != pictures[0]).any()


@pytest.mark.rare  # tests/methods/test_imagen.py has a small one of the same parts
def test_what_enlarges_is_trained_on_parts_and_draws_whole_pictures(root):
    upper = trained(
        root, "imagen_1024_folder", *of_t5(root), *given("data.shape=(32,32,3) low.size=(8,8) data.part=(16,16)"),
        *given(NETWORK.replace("blocks=1", "blocks=(1,1)"), "model."),
    )  # fmt: skip
    pictures, told = drawn(upper, "--condition=noise_level=0,0.5")
    assert pictures.shape == (2, 32, 32, 3)
    assert told["low_res"].shape == (2, 8, 8, 3)


@pytest.mark.rare  # tests/methods/test_unclip.py has small ones of the same parts
def test_unclip_is_trained_and_draws_by_a_prompt_and_by_a_picture(root):
    of_clip = [f"--config.clip.folder={root / 'clip'}", *given(OF_CLIP)]
    decoder = trained(
        root, "unclip_decoder_folder", *of_clip, *given(f"{NETWORK} tokens=32", "model."), "--config.low.size=(8,8)"
    )
    assert drawn(decoder, "--prompt=a cat")[0].shape == (2, 8, 8, 3)
    _, told = drawn(decoder)
    assert not told["mask"].any()
    assert np.isfinite(told["image"]).all()  # variations of pictures
    small = f"{NETWORK} tokens=32 steps=2 low=(8,8) run={decoder}"
    prior = trained(
        root, "unclip_prior_folder", *of_clip, *given("features=32 layers=1 heads=2", "prior."),
        *given(small, "decoder."),
    )  # fmt: skip
    pictures, _ = drawn(prior, "--prompt", *TEXTS)
    assert pictures.shape == (2, 8, 8, 3)
    assert (pictures[0] != pictures[1]).any()
    upper = trained(
        root, "unclip_256_folder", *given("data.shape=(32,32,3) low.size=(8,8) data.part=(16,16)"),
        *given(NETWORK.replace("attention_levels=(1,)", ""), "model."),
    )  # fmt: skip
    assert drawn(upper, "--sampler=ddim")[0].shape == (2, 32, 32, 3)


def test_what_does_not_fit_is_refused_before_anything_is_written(root, tmp_path, capsys):
    base = ["--config", "configs/imagen_base_folder.py", "--workdir", str(tmp_path / "run")]
    pictures = f"--config.data.dir={root / 'pictures'}"
    for more, said in {
        (pictures,): "no encoder of texts; give its folder: --config.text.folder=DIR",
        (pictures, f"--config.text.folder={root / 'clip'}"): "has a CLIPModel; a T5 is expected",
        (f"--config.text.folder={root / 't5'}",): "--config.data.dir=PATH",
    }.items():
        with pytest.raises(SystemExit, match="2"):
            cli.run(train.main, [*base, *more])
        assert said in capsys.readouterr().err.splitlines()[-1]
        assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"--config.clip.length=20: this CLIP reads 16 tokens at most"):
        readers.clip(section(root / "clip", 20), "--config.clip")
    text_tiny.t5(vocab_size=24).save_pretrained(tmp_path / "text_encoder")
    text_tiny.t5_tokenizer().save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(InputError, match=r"the tokenizer has \d+ pieces and the encoder knows 24"):
        readers.t5(section(tmp_path, 12), "--config.text")
