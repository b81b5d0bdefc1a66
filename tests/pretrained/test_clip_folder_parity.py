"""A CLIP of captioned pictures: trained, resumed, exported, read by transformers, and held by unCLIP's decoder."""

import json
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import config, export, train
from diffusion_jax.app import cli, resolve
from diffusion_jax.core.errors import InputError
from diffusion_jax.core.files import json_object
from diffusion_jax.data.images import to_float
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.methods.text_to_image import clip, readers
from diffusion_jax.models.encoders.clip import unit
from diffusion_jax.pretrained import encoders, entries, tokenizers
from diffusion_jax.pretrained.families import clip_images
from diffusion_jax.pretrained.formats import safetensors_file

torch = pytest.importorskip("torch", reason="PyTorch is not installed (the extra parity)")
transformers = pytest.importorskip("transformers", reason="transformers is not installed (the extra parity)")
pytest.importorskip("tokenizers", reason="tokenizers is not installed (the extra text)")

import text_tiny  # noqa: E402

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

SMALL = (
    "data.shape=(16,16,3) data.threads=0 clip.length=12 clip.patch=8 clip.embedding=24 clip.bfloat16=false "
    "text.features=32 text.layers=2 text.heads=4 vision.features=24 vision.layers=1 vision.heads=2 "
    "train.batch_size=8 train.warmup_steps=0 train.decay_steps=0 train.learning_rate=0.01 log.checkpoint_every=1"
)
TEXTS = ["a cat", "the dog, asleep", "the cat and the dog and the cat and the dog"]  # the last is cut


def trained(root, name, steps, *more):
    arguments = ["--config", "configs/clip_folder.py", "--workdir", str(root / name), f"--config.train.steps={steps}"]
    places = [f"data.dir={root / 'pictures'}", f"clip.tokenizer={root / 'pieces'}"]
    cli.run(train.main, [*arguments, *(f"--config.{value}" for value in (*SMALL.split(), *places, *more))])


def exported(root, name, *more):
    cli.run(export.main, ["--workdir", str(root / "clip"), "--to", str(root / name), *more])
    return root / name


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """pictures/ with texts, pieces/ with a tokenizer, and clip/, a run of four steps."""
    root = tmp_path_factory.mktemp("clip")
    text_tiny.tokenizer().save_pretrained(root / "pieces")
    rng = np.random.default_rng(0)
    (root / "pictures").mkdir()
    for number, sides in enumerate([(16, 16), (20, 34), (40, 17)]):
        Image.fromarray(rng.integers(0, 255, (*sides, 3), np.uint8)).save(root / "pictures" / f"{number}.png")
        (root / "pictures" / f"{number}.txt").write_text(TEXTS[number])
    trained(root, "clip", 4)
    return root


def params_of(folder):
    return resolve.RAW.read(folder, resolve.experiment(folder), None)[1]


def test_the_papers_size_is_that_of_published_weights(root):
    """By name and shape; 427,616,513 numbers. The published config stands here as transformers reads it."""
    both = {"projection_dim": 768, "hidden_act": "quick_gelu"}
    text = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    vision = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision |= {"image_size": 224, "patch_size": 14}
    with torch.device("meta"):
        said = transformers.CLIPConfig(text_config=text | both, vision_config=vision | both, projection_dim=768)
        theirs = {name: tuple(x.shape) for name, x in transformers.CLIPModel(said).named_parameters()}
    pieces = tokenizers.opened(root / "pieces", 77)._replace(size=49_408)
    network = encoders.described(clip.described(clip.config(), pieces))
    ours = {name: shape for name, (_, shape) in entries.kinds(network.template(), network.entries).items()}
    assert ours == theirs
    assert sum(map(np.prod, ours.values())) == 427_616_513


def test_of_a_model_on_the_hub_the_tokenizer_alone_is_fetched(root, monkeypatch):
    """The hub is replaced by a folder, of which what is asked for is listed."""
    wanted = []

    def snapshot_download(name, revision, allow_patterns):
        wanted.extend(allow_patterns)
        return root / "pieces"

    monkeypatch.setitem(sys.modules, "huggingface_hub", SimpleNamespace(snapshot_download=snapshot_download))
    folder, found = readers.tokenizer("owner/clip", "--config.clip.tokenizer", 12)
    assert (folder, found.length, found.size) == (root / "pieces", 12, 520)
    assert {"tokenizer.json", "vocab.json", "tokenizer/merges.txt"} <= {*wanted}
    assert not [name for name in wanted if name.endswith((".safetensors", ".bin"))]


def test_a_run_that_was_ended_goes_on_to_the_bit(root):
    for steps in (1, 4):
        trained(root, "halves", steps)
    whole, halves = jax.tree.leaves(params_of(root / "clip")), jax.tree.leaves(params_of(root / "halves"))
    for one, other in zip(whole, halves, strict=True):
        np.testing.assert_array_equal(one, other)


def embedded_by_transformers(folder):
    """Of the texts and of two pictures of other shapes, all of it read from `folder`."""
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    pieces = transformers.AutoTokenizer.from_pretrained(folder)
    prepare = transformers.CLIPImageProcessor.from_pretrained(folder)
    shown = prepare([Image.fromarray(x) for x in pictures()], return_tensors="pt")
    with torch.no_grad():
        read = pieces(TEXTS, padding="max_length", truncation=True, return_tensors="pt")
        found = model(input_ids=read["input_ids"], pixel_values=shown["pixel_values"])
    return found.text_embeds.numpy(), found.image_embeds.numpy(), found.logits_per_image.numpy(), read, shown


def pictures():
    return np.random.default_rng(1).integers(0, 255, (2, 16, 16, 3), np.uint8)


def test_transformers_reads_the_export_and_embeds_alike(root):
    """Logits are 14 times cosines. The control, an earlier checkpoint, is another by far."""
    folder = exported(root, "exported")
    texts, images, logits, read, shown = embedded_by_transformers(folder)
    assert json_object(folder / "tokenizer_config.json")["model_max_length"] == 12  # where the tokenizer's says 16
    encoder, params = encoders.opened(folder, ""), params_of(root / "clip")
    for one, other in zip(jax.tree.leaves(encoder.read()), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(one, other)
    ids, mask = tokenizers.opened(folder).encode(TEXTS)
    np.testing.assert_array_equal(ids, read["input_ids"])
    prepare = clip_images.preparation(json_object(folder / clip_images.FILE))
    prepared = prepare(to_float(pictures()))
    np.testing.assert_allclose(prepared, shown["pixel_values"].numpy().transpose(0, 2, 3, 1), atol=1e-5)
    model = encoder.network.model
    of_texts = unit(model.text.apply({"params": params["text"]}, ids, mask).pooled)  # as in training
    of_images = unit(model.vision.apply({"params": params["vision"]}, prepared).embedding)
    ours = of_texts, of_images, model.apply({"params": params}, ids, prepared)
    for one, other, atol in zip(ours, (texts, images, logits), (1e-5, 1e-5, 2e-4), strict=True):
        np.testing.assert_allclose(one, other, atol=atol)
    control = embedded_by_transformers(exported(root, "earlier", "--step", "2"))
    assert min(abs(a - b).max() for a, b in zip(control, (texts, images, logits), strict=False)) > 1e-2


def test_pictures_are_trained_on_as_published_encoders_see_them(root):
    experiment = resolve.experiment(root / "clip")
    source = experiment.data.source("train")
    assert [source[i]["image"].shape for i in range(3)] == [(16, 16, 3), (16, 27, 3), (37, 16, 3)]
    (crop,) = experiment.data.transforms
    assert {crop(source[i], np.random.default_rng(i))["image"].shape for i in range(3)} == {(16, 16, 3)}
    batch = {name: np.asarray(x)[None] for name, x in source[0].items()}
    seen = clip_images.preparation(clip_images.of_side(16))(to_float(batch["image"]))
    np.testing.assert_allclose(experiment.data.clean(batch)["image"], seen, atol=1e-5)


def test_an_export_that_was_interrupted_is_no_model(root, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    # The weights do not come, or the config after them.
    for module, name in ((safetensors_file, "write"), (entries.files, "write_json")):
        half = root / f"half_{name}"
        with monkeypatch.context() as patch:
            patch.setattr(module, name, stopped)
            with pytest.raises(KeyboardInterrupt):
                export.main(["--workdir", str(root / "clip"), "--to", str(half)])
        assert (half / "tokenizer_config.json").exists()  # something was written
        with pytest.raises(InputError, match=r"holds no config\.json"):
            encoders.opened(half, "")
        with pytest.raises(
            (OSError, RuntimeError), match=r"no file named model|size mismatch|ignore_mismatched_sizes"
        ):
            transformers.CLIPModel.from_pretrained(half)


def test_unclips_decoder_holds_it(root):
    """Its parameters to the bit, and what the decoder is told of them; nothing is compiled."""
    folder = exported(root, "held")
    values = (
        f"data.dir={root / 'pictures'} clip.folder={folder} clip.length=12 data.shape=(16,16,3) low.size=(8,8) "
        "model.channels=64 model.groups=8 "
        "model.multipliers=(1,) model.blocks=1 model.attention_levels=() model.tokens=32"
    )
    module = config.load("configs/unclip_decoder_folder.py")
    chosen = config.override(module.get_config(), [f"--config.{value}" for value in values.split()])
    experiment = module.build(chosen)
    held, params = experiment.task.held(), params_of(root / "clip")
    for part in (readers.OF_TEXTS, readers.OF_PICTURES):
        for one, other in zip(jax.tree.leaves(held["clip"][part]), jax.tree.leaves(params[part]), strict=True):
            np.testing.assert_array_equal(one, other)
    batch = {name: jax.ShapeDtypeStruct((2, *x.shape), x.dtype) for name, x in experiment.data.example.items()}
    keys, start = jax.random.split(jax.random.key(0)), jax.eval_shape(experiment.task.init, jax.random.key(0))
    t, _ = experiment.task.times.draw(experiment.task.times.init(), keys[0], np.arange(2), 2)
    losses, _ = jax.eval_shape(experiment.task.loss, keys, start, batch, Context(t, held=held))
    assert losses.shape == (2,)


def changed(folder, to, file, **said):
    """A copy of a tokenizer whose file says more."""
    tokenizers.save(folder, to)
    (to / file).write_text(json.dumps(json_object(to / file) | said))
    return to


def test_what_does_not_fit_is_one_line_before_anything_is_written(root, tmp_path, capsys):
    left = changed(root / "pieces", tmp_path / "left", "tokenizer_config.json", padding_side="left")
    refused = {
        "train.accumulate=2": "train.accumulate=2: each example of a batch is compared with all others; take 1",
        "clip.tokenizer=": "no tokenizer is given; give its folder: --config.clip.tokenizer=DIR",
        f"clip.tokenizer={root / 'pictures'}": "it is no tokenizer's folder",
        f"clip.tokenizer={left}": "take one that pads on the right",
        "clip.patch=7": "patches of 7 pixels do not tile a picture of 16x16; take a divisor of both",
        "data.shape=(16,24,3)": "data.shape=(16, 24, 3): a CLIP of transformers sees squares in 3 colours",
        "data.shape=(16,16,1)": "give (side, side, 3)",
        "vision.heads=5": "num_attention_heads = 5 is not supported; a divisor of hidden_size = 24",
        "clip.length=5000": "clip.length",
        "data.shape=(24,24,3)": "smaller than 24 x 24",
        f"data.dir={tmp_path}": "holds no images",
    }
    for value, said in refused.items():
        with pytest.raises(SystemExit, match="2"):
            trained(root, tmp_path / "run", 1, value)
        lines = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(" images")]
        assert len(lines) == 1, lines
        assert said in lines[0]
        assert not (tmp_path / "run").exists()
