"""Every config builds, has the size its paper says, and can be drawn from."""

import copy
import json
import pickle
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from diffusion_jax import config, evaluate, sample, train
from diffusion_jax.app import cli
from diffusion_jax.config import values
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sources
from diffusion_jax.diffusion import samplers, timesteps
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.methods import ddpm, imagen_super_resolution, latent_diffusion, unclip
from diffusion_jax.methods.autoencoders import priors
from diffusion_jax.methods.compose import Chain, compose
from diffusion_jax.methods.text_to_image import readers, unclip_parts
from diffusion_jax.pretrained import tokenizers
from diffusion_jax.training import loop, optimizers, workdir
from diffusion_jax.training.experiment import SampleRequest
from experiments import configs_page
from experiments.strangers import overrides
from tests import tiny

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parent.parent.parent / "configs"
GALLERY = (FOLDER.parent / "docs" / "measured" / "gallery.md").read_text()
PUBLISHED = {
    "vqvae_cifar": 662_723 + 2 * (512 + 512 * 64),  # beside the network counts and sums, and as much to revive codes
    # The network, the discriminator, and two gradients by a kernel of 3x3x128x3.
    "first_stage_kl_f8": 83_653_863 + 2_765_633 + 2 * 3456,
    "first_stage_vq_f4": 55_322_782 + 2_765_633 + 2 * 3456,
    "cifar": 35_746_307,
    "celeba_hq": 113_673_219,
    "lsun_bedroom": 113_673_219,
    "lsun_church": 113_673_219,
    "lsun_cat": 113_673_219,
    # Improved DDPM's and a table of 11 labels; ADM's and one label more.
    "guided_cifar": 52_546_438 + 11 * 512,
    "imagenet64": 295_904_454 + 768,
    "imagenet256_dit": 674_834_720,
    # As NVlabs' SongUNets of these arguments; ADM's with the mean alone.
    **dict.fromkeys(("edm_cifar", "ect_cifar"), 55_732_739),
    **dict.fromkeys(("edm_cifar_ncsnpp", "consistency_cifar"), 56_395_651),
    **dict.fromkeys(("edm_imagenet64", "consistency_imagenet64"), 295_904_454 - 3 * (9 * 192 + 1)),
    # Told T5-XXL's tokens, of 4096 features. The papers say 2 billion, 600 and 400 million.
    "imagen_base_folder": 2_437_410_819,
    "imagen_256_folder": 516_813_059,
    "imagen_1024_folder": 512_614_659,
    # Told by CLIP of ViT-L/14. 3.5 billion with a text transformer of 1.2 billion; 1 billion, 700 and 300 million.
    "unclip_decoder_folder": 2_249_193_734,
    "unclip_prior_folder": 1_223_461_632,
    "unclip_256_folder": 729_710_726,
    "unclip_1024_folder": 282_064_326,
    "clip_folder": 427_616_513,  # as transformers' CLIPModel of openai/clip-vit-large-patch14
}

TAUGHT_BY = {  # what a config must be given: the tiny published folder, and its value
    "lcm_folder": ("ddpm", "distill.teacher"),
    "consistency_folder": ("unlabelled", "distill.teacher"),
    "consistency_training_folder": ("unlabelled", "start.folder"),
}


TRAINING = "".join(path.read_text() for path in Path(loop.__file__).parent.glob("*.py"))
TOLD = {  # what samples are told by default is of test images that are not here
    "super_resolution": {"low_res": np.zeros((2, 8, 8, 1))},
    "unclip_decoder": {"image": np.zeros((2, 32, 32, 1))},
    # Or of a folder of pictures.
    "unclip_decoder_folder": {"prompt": np.array(["a cat"])},
    **{
        f"{system}_{side}_folder": {"low_res": np.zeros((2, side // 4, side // 4, 3))}
        for system in ("imagen", "unclip")
        for side in (256, 1024)
    },
}

READ_BY_THE_LOOP = {
    "seed",
    *re.findall(r"config\.((?:train|log|data)\.\w+)", TRAINING),
    *(f"log.{name}" for name in (*loop.DUE, *re.findall(r"self\._log\.(\w+)", TRAINING))),
}


CAPTIONED = tuple(name for name in PUBLISHED if name.startswith(("imagen_", "unclip_")))
ENDS = (
    "_cifar _imagenet _mnist _ncsnpp imagenet64 _dit _church _cat celeba_hq edm _f4 _f8 latent_digits latent_guided "
    "lsun_bedroom folder"
)
LONG = (*ENDS.split(), "super_resolution", "unclip_decoder", "unclip_prior", *CAPTIONED)


def cases() -> list:
    """All configs; many of the papers' take seconds each to trace, and some have one network."""

    def marks(path):
        return [pytest.mark.exhaustive] if path.stem.endswith(LONG) else []

    return [pytest.param(path, id=path.stem, marks=marks(path)) for path in sorted(FOLDER.glob("*.py"))]


def first_stage(stage):
    """In place of a run of codes, the shapes of its parameters."""
    return {priors.STAGE: jax.eval_shape(stage.init, jax.random.key(0))}


def first_stage_of_latents(config, stage, known, scale):
    """In place of a first stage, the shapes of its parameters; its weights and latents are named by no config."""
    assert not config.first_stage.weights
    each = jax.ShapeDtypeStruct(stage.shape[-1:], jnp.float32)
    return lambda: {latent_diffusion.STAGE: stage.template, latent_diffusion.SCALING: {"scale": each, "shift": each}}


def upper_prior(above):
    """In place of a prior's run, the shapes of its parameters."""
    shown = jnp.zeros((1, *above.data.shape), jnp.int32)
    return jax.eval_shape(lambda key: above.model.init(key, shown, jnp.zeros(1))["params"], jax.random.key(0))


def base_of(folder, model, low):
    """In place of an Imagen's base, the shapes of its parameters."""
    shapes = imagen_super_resolution.template(model, low)
    return {"text": shapes["text"], "base": shapes["network"]}


def reader_of(width, section, **more):
    """In place of a published encoder of texts, the shapes of what it says."""
    assert not section.folder  # which no config names
    length, dtype = section.length, jnp.bfloat16 if section.bfloat16 else jnp.float32
    told = {"tokens": ((length, width), dtype), "token_mask": ((length,), jnp.bool_), **more}

    def says(params, ids, mask):
        return {name: jnp.zeros((len(ids), *shape), kind) for name, (shape, kind) in told.items()}

    def encode(texts):
        return np.zeros((len(texts), length), np.int32), np.ones((len(texts), length), bool)

    shapes = {name: jax.ShapeDtypeStruct(*x) for name, x in told.items()}
    return readers.Reader(tokenizers.Tokenizer(encode, lambda text: "", length, 9), says, shapes, dict)


def t5(section, flag):
    """In place of T5-XXL."""
    return reader_of(4096, section)


def clip(section, flag):
    """In place of CLIP of ViT-L/14."""
    reader = reader_of(768, section, text_embedding=((768,), jnp.float32))
    return readers.Clip(reader, lambda params, x: jnp.zeros((len(x), 768)), 768)


def clips_tokenizer(name, flag, length):
    """In place of CLIP's tokenizer: texts of a begin and an end."""
    assert not name  # which no config has

    def encode(texts):
        ids = np.full((len(texts), length), 49_407, np.int32)
        ids[:, 0] = 49_406
        return ids, np.broadcast_to(np.arange(length) < 2, ids.shape)

    return Path(), tokenizers.Tokenizer(encode, lambda text: "", length, 49_408)


def statistics_of_embeddings(clip, params, images):
    """In place of what they are of the data, their shapes."""
    return dict.fromkeys(("mean", "std"), jax.ShapeDtypeStruct((clip.size,), jnp.float32))


@pytest.mark.parametrize("path", cases())
def test_a_config_builds_and_says_how_to_run_it(path, tmp_path, monkeypatch):
    module = config.load(path)
    chosen = module.get_config()
    if path.stem in TAUGHT_BY:
        monkeypatch.syspath_prepend(FOLDER.parent / "tests" / "pretrained")
        from published_tiny import make

        name, key = TAUGHT_BY[path.stem]
        chosen.update_from_flattened_dict({key: str(make(tmp_path, name))})
    if "codes" in chosen:
        monkeypatch.setattr(priors, "held_of", lambda folder, stage: partial(first_stage, stage))
        monkeypatch.setattr(priors, "_prior_above", lambda folder, first, above: upper_prior(above))
    monkeypatch.setattr(latent_diffusion, "held_of", first_stage_of_latents)
    # In place of runs, and of what their networks say of images, shapes.
    monkeypatch.setattr(unclip, "params_of", lambda folder, flag, what, section, template, *_: template)
    monkeypatch.setattr(imagen_super_resolution, "base_of", base_of)
    monkeypatch.setattr(unclip_parts, "statistics", statistics_of_embeddings)
    monkeypatch.setattr(readers, "t5", t5)
    monkeypatch.setattr(readers, "clip", clip)
    monkeypatch.setattr(readers, "tokenizer", clips_tokenizer)
    watched, read = values.watched(chosen)
    experiment = module.build(watched)
    assert re.search(rf"python -m diffusion_jax\.(train|distill) --config configs/{path.name} --", module.__doc__)
    assert f"`{path.stem}`" in GALLERY or f"`configs/{path.name}`" in GALLERY
    params = jax.eval_shape(experiment.task.init, jax.random.key(0))
    if path.stem in PUBLISHED:
        assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PUBLISHED[path.stem]
    # Shapes only: nothing of this size is computed here.
    batch = {name: jax.ShapeDtypeStruct((2, *x.shape), x.dtype) for name, x in experiment.data.example.items()}
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 2))
    times, averages = (
        experiment.task.times,
        {"ema": params, **dict.fromkeys(experiment.optimization.averages, params)},
    )
    t, _ = jax.eval_shape(lambda: times.draw(times.init(), jax.random.key(0), jnp.arange(2), 2))
    held = {"teacher": params} if "distill" in chosen else experiment.task.held()
    whole = experiment.sampling.whole(params, lambda: held)
    context = Context(t, averages=averages, held=held)
    losses, info = jax.eval_shape(experiment.task.loss, keys, params, batch, context)
    assert {leaf.shape for leaf in (losses, *info.values())} == {(2,)}
    # By default these two are told test examples, and not all of them are here.
    shape = experiment.data.shape
    given = {
        "reconstruct": lambda: {"x": np.zeros((2, *shape))},
        "rollout": lambda: {"known": np.zeros((2, 3, *shape[1:]))},
    }
    samplers = list(experiment.sampling.samplers.items())
    # Of the long ones the first alone: a small config of the same method has the others.
    for name, make in samplers[:1] if path.stem.endswith(LONG) else samplers:
        told = experiment.sampling.told.get(name, experiment.data.sample_condition)(
            2, given.get(name, lambda: TOLD.get(path.stem, {}))()
        )
        drawn = jax.eval_shape(make(SampleRequest(batch=2)), whole, keys, *told)
        assert {leaf.shape[0] for leaf in jax.tree.leaves(drawn)} == {2}
    # What a work directory stores gives the same values back.
    assert config.from_json(module.get_config(), config.to_json(chosen)).to_dict() == chosen.to_dict()
    # No value is there that nothing reads: neither what was composed, nor a preview, nor the loop, nor the data.
    if experiment.sampling.preview:
        experiment.sampling.preview(2)
    data = {"data.dir"} if "config.data.dir" in path.read_text() else set()
    by_commands = {"distill.stages", "distill.updates"}
    if experiment.sampling.preview is None:  # of a model that draws nothing
        by_commands.add("log.preview_steps")
    assert not {key for key, *_ in values.walk(chosen)} - read - READ_BY_THE_LOOP - data - by_commands


@pytest.mark.exhaustive
def test_ones_own_images_train_from_the_command_line(tmp_path, capsys):
    """Non-square, grey, and through the folder source, for two steps."""
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for i in range(4):
        Image.fromarray(rng.integers(0, 255, (20, 40), np.uint8)).save(tmp_path / "images" / f"{i}.png")
    small = ["channels=8", "groups=4", "multipliers=(1,2)", "blocks=1", "attention_levels=(1,)"]
    arguments = [
        *("--config", str(FOLDER / "folder.py"), "--workdir", str(tmp_path / "run")),
        *(f"--config.data.dir={tmp_path / 'images'}", "--config.data.shape=(8,16,1)", "--config.train.batch_size=8"),
        *(f"--config.model.{value}" for value in small),
        *("--config.train.steps=2", "--config.log.sample_every=0"),
    ]
    cli.run(train.main, arguments)
    assert "4 examples" in capsys.readouterr().err
    assert (tmp_path / "run" / "checkpoints" / "2").is_dir()


def test_a_folder_must_be_named(tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        cli.run(train.main, ["--config", str(FOLDER / "folder.py"), "--workdir", str(tmp_path / "run")])
    assert "--config.data.dir=PATH" in capsys.readouterr().err


# ---- Values, by their descriptions.


def test_every_value_is_described_and_the_page_says_so():
    for path in sorted(FOLDER.glob("*.py")):
        for key, _, about in values.walk(config.load(path).get_config()):
            assert about.about, f"{key} of {path.name} has no description"
    assert configs_page.PAGE.read_text() == configs_page.page(), "run python -m experiments.configs_page"


def test_help_lists_the_values_of_a_config(capsys):
    with pytest.raises(SystemExit, match="0"):
        train.main(["--config", str(FOLDER / "text.py"), "--help"])
    said = capsys.readouterr().out
    assert "data.length           64     characters in a piece: a whole number from 1 to 1,000,000" in said
    assert max(map(len, said.splitlines())) < 120


WHOLE, REAL = values.Whole(1, 9, zero="none"), values.Real(-1, 2, below=True)
LIST = values.Several(values.Whole(0, 3), 1, 2)
KINDS = [  # a kind, texts that it reads and as what, and texts that it refuses
    (WHOLE, {"1": 1, "9": 9, "0": 0}, ["10", "-1", "1.0", "", "nan", "true", "9" * 5000]),
    (REAL, {"-1": -1.0, "1.999": 1.999, "-0.0": 0.0, "1e0": 1.0}, ["2", "-1.01", "nan", "inf", "-inf", "", "1e308"]),
    (values.Truth(), {"true": True, "False": False, "0": False}, ["2", "yes", ""]),
    (values.Text(), {"a b": "a b", "": ""}, ["a\nb", "a\0", "x" * 5000]),
    (values.Word(("a", "b")), {"a": "a"}, ["c", ""]),
    (LIST, {"(1,)": (1,), "1,2": (1, 2), "[3]": (3,), " 0 ": (0,)}, ["", "()", "(4,)", "1,1,1", "((1,),)", "None,"]),
]


@pytest.mark.parametrize(("kind", "read", "refused"), KINDS, ids=[type(kind).__name__ for kind, *_ in KINDS])
def test_a_kind_takes_what_it_says(kind, read, refused):
    for text, value in read.items():
        assert kind.read(text) == value
        assert type(kind.read(text)) is type(value)
        assert kind.take(kind.read(text)) == value  # also as it comes back from a file
    for text in refused:
        with pytest.raises(values.REFUSALS):
            kind.read(text)
    for other in (None, [None], {}, object(), float("nan"), 10**5000):
        with pytest.raises(values.REFUSALS):
            kind.take(other)


def test_values_of_ones_own_are_declared_and_checked():
    mine = tiny.get_config()
    mine.process = values.Config(grain=values.number(0.3, "of the picture", 1e-6, 10, zero="none"))
    mine.other = {"levels": (1, 2), "rate": 0.5, "name": "", "nothing": None, "count": 3}
    mine.process.grain = 1  # of another type: it is checked later, and made one
    given = ("other.levels=(3,)", "other.rate=0.25", "process.grain=0")
    found = config.override(mine, [f"--config.{value}" for value in given])
    assert (found.process.grain, found.other.levels, found.other.rate) == (0.0, (3,), 0.25)
    assert values.checked(mine).process.grain == 1.0
    for wrong in ("process.grain=-1", "other.levels=(0.5,)", "other.rate=inf", "other.count=1.5"):
        with pytest.raises(InputError, match=wrong.partition("=")[0]):
            config.override(mine, [f"--config.{wrong}"])
    mine.other.rate = float("nan")
    with pytest.raises(InputError, match=r"other.rate = nan: a config holds finite numbers"):
        values.checked(mine)
    mine.other.rate, mine.process.grain = 0.5, "x"
    with pytest.raises(InputError, match=r"^process.grain='x': give a number from 1e-06 to 10, or 0: none \(of the"):
        values.checked(mine)


def test_a_config_file_that_sets_what_no_one_reads(tmp_path, capsys):
    """A slip of the pen is refused, as is a wrong value; neither waits for an override."""
    for line, said in {
        "config.train.learning_rat = 1e-3": "train.learning_rat, which nothing reads; did you mean train.learning_ra",
        "config.train.steps = 2.5": "own.py: train.steps=2.5: give a whole number of 1 or more",
        "config.train.own = object()": "train.own = ",
        "config = 3": "gives int; give a values.Config",
    }.items():
        lines = ["from tests import tiny", "from tests.tiny import build", "def get_config():"]
        lines += ["    config = tiny.get_config()", f"    {line}", "    return config"]
        (tmp_path / "own.py").write_text("\n".join(lines))
        with pytest.raises(SystemExit, match="2"):
            cli.run(train.main, ["--config", str(tmp_path / "own.py"), "--workdir", str(tmp_path / "run")])
        (found,) = capsys.readouterr().err.strip().splitlines()
        assert said in found
        assert not (tmp_path / "run").exists()


def test_the_page_declares_values_as_it_says():
    (code,) = re.findall(r"```python\n(.*?)```", configs_page.PAGE.read_text(), re.DOTALL)
    names = {}
    exec(code, names)
    found = values.checked(names["get_config"]())
    assert (found.train.steps, found.process.grain, found.process.frames) == (5000, 0.3, 8)
    assert found.process.described("grain").kind.zero == "no grain"


def test_copies_keep_descriptions():
    found = values.checked(tiny.get_config())
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found)), found.copy_and_resolve_references()):
        assert other.to_dict() == found.to_dict()
        assert other.train.described("steps") == found.train.described("steps")


def test_zero_is_off_for_the_optimiser():
    """No clipping is Adam's own update, no warm-up its full rate; the state has the structure that it always has."""
    train = tiny.get_config().train
    train.update({"warmup_steps": 0, "clip_norm": 0.0, "learning_rate": 0.1})
    params, gradients = {"w": jnp.ones(3)}, {"w": jnp.array([3.0, -4.0, 1e3])}
    ours, adam = optimizers.adam(train).transformation, optax.adam(0.1, eps=1e-8)
    update, state = ours.update(gradients, ours.init(params))
    np.testing.assert_allclose(update["w"], [-0.1, 0.1, -0.1], rtol=1e-5)
    np.testing.assert_array_equal(update["w"], adam.update(gradients, adam.init(params))[0]["w"])
    train.update({"warmup_steps": 10, "clip_norm": 1.0})
    theirs = optimizers.adam(train).transformation
    assert jax.tree.structure(theirs.init(params)) == jax.tree.structure(state)
    assert (theirs.update(gradients, theirs.init(params))[0]["w"] == 0).all()  # the rate rises from 0


def test_a_rate_rises_and_falls_and_parts_have_their_own():
    train = tiny.get_config().train
    train.update({"warmup_steps": 10, "decay_steps": 20, "learning_rate": 0.1, "final_rate": 0.01, "clip_norm": 0.0})
    law = optimizers.rate(train)
    np.testing.assert_allclose([law(n) for n in (0, 5, 10, 20, 30, 99)], [0, 0.05, 0.1, 0.055, 0.01, 0.01], rtol=1e-6)
    train.weight_decay = optimizers.with_weight_decay(tiny.get_config(), 0.5).train.weight_decay
    params = {"code": jnp.ones((2, 2)), "net": {"w": jnp.ones((2, 2)), "b": jnp.ones(2)}}
    made = optimizers.by_part(optimizers.adamw, code=lambda train: optimizers.Optimizer(optax.sgd(1.0)))(train)
    state = made.transformation.init(params)
    for _ in range(6):  # five updates of no gradient, at rates that rise
        update, state = made.transformation.update(jax.tree.map(jnp.zeros_like, params), state, params)
    np.testing.assert_allclose(update["net"]["w"], -0.5 * law(5), rtol=1e-6)  # weights decay
    assert not update["net"]["b"].any()
    update, _ = made.transformation.update(jax.tree.map(jnp.ones_like, params), state, params)
    np.testing.assert_array_equal(update["code"], -1)
    assert made.rates.keys() == {"learning_rate"}


def test_adam_of_other_decays_is_the_papers():
    """Three updates of one weight by hand, with decoupled decay; of a bias without. The usual decays are others."""
    config = optimizers.with_epsilon(optimizers.with_betas(tiny.get_config(), (0.8, 0.9)), 0.5)
    train = optimizers.with_weight_decay(config, 0.3).train
    train.update({"warmup_steps": 0, "decay_steps": 0, "clip_norm": 0.0, "learning_rate": 0.1})
    made, usual = optimizers.adamw_of_betas(train).transformation, optimizers.adamw(train).transformation
    params = {"w": jnp.ones((1, 1)), "b": jnp.ones(1)}
    state, w, b, first, second = made.init(params), 1.0, 1.0, 0.0, 0.0
    for number, slope in enumerate((2.0, -1.0, 0.5), 1):
        gradients = jax.tree.map(lambda x, slope=slope: jnp.full_like(x, slope), params)
        if number == 1:
            other, _ = usual.update(gradients, usual.init(params), params)
        update, state = made.update(gradients, state, params)
        params = optax.apply_updates(params, update)
        first, second = 0.8 * first + 0.2 * slope, 0.9 * second + 0.1 * slope**2
        step = first / (1 - 0.8**number) / ((second / (1 - 0.9**number)) ** 0.5 + 0.5)
        w, b = w - 0.1 * (step + 0.3 * w), b - 0.1 * step
        np.testing.assert_allclose([params["w"][0, 0], params["b"][0]], [w, b], rtol=1e-6)
        if number == 1:
            assert abs(other["b"][0] - update["b"][0]) > 0.01


def test_a_part_of_a_method_is_changed_by_replacing_it():
    """A sampler and an optimiser of one's own; what is left as it was is the same."""
    values = tiny.get_config()
    method = ddpm.method(values, sources.digits)

    def heun(steps=25):
        return Chain(samplers.heun(method.schedule), timesteps.uniform(steps, 1000))

    def slow(train):
        return optimizers.Optimizer(optax.sgd(1e-3), {"learning_rate": lambda number: 1e-3})

    experiment = compose(values, method._replace(chains={**method.chains, "heun": heun}, optimizer=slow))
    assert [*experiment.sampling.samplers] == ["ancestral", "ddim", "heun"]
    assert experiment.method.chains["heun"] is heun
    params = jax.eval_shape(experiment.task.init, jax.random.key(0))
    assert not jax.tree.leaves(jax.eval_shape(experiment.optimization.optimizer.transformation.init, params))
    drawn = jax.eval_shape(experiment.sampling.samplers["heun"](SampleRequest(2)), params, jax.random.key(0))
    assert drawn.shape == (2, 8, 8, 1)


class Begins(Exception):
    """All checks have been passed: the work directory would be made now."""


@pytest.mark.parametrize("name", ["swiss_roll", "text"])
def test_overrides_without_sense_are_refused_before_anything_is_written(name, tmp_path, capsys, monkeypatch):
    """Each is taken, or refused in one line. `python -m experiments.strangers.overrides` goes on from here."""

    def begin(*_):
        raise Begins

    monkeypatch.setattr(loop, "locked", begin)
    monkeypatch.setattr(loop, "_first", lambda *_: None)  # compiles, and reads nothing here
    rng, taken = np.random.default_rng(0), 0
    file = FOLDER / f"{name}.py"
    known = list(values.walk(config.load(file).get_config()))
    for key, default, _ in known:
        for _ in range(2):
            small = (*overrides.SMALL[name], *overrides.SHORT, "train.batch_size=16")
            given = [f"--config.{value}" for value in (*small, f"{key}={overrides.mutated(rng, default)}")]
            try:
                cli.run(train.main, ["--config", str(file), "--workdir", str(tmp_path / "run"), *given])
            except Begins:
                taken += 1
                continue
            except SystemExit as end:
                code = end.code
            said = capsys.readouterr().err.splitlines()
            assert (code, len(said)) == (2, 1), (given[-1], said)
            assert said[0].startswith("error: ")
            assert not (tmp_path / "run").exists()
    assert 0 < taken < len(known)


DAMAGES = {
    "not JSON": "{",
    "not text": b"\xff\xfe",
    "a list": "[]",
    "deep": "[" * 100_000,
    "deep sections": '{"a":' * 500 + "1" + "}" * 500,
    "large": " " * 2**21,
    "no values": '{"config_file": "x.py"}',
    "a file that is no path": {"config_file": "a\0b"},
    "a file that is a number": {"config_file": 3},
    "a section that is a text": {"train": "many"},
    "no section": {"train": None},
    "a text for a list": {"train.ema_decays": "(0.5,)"},
    "a nested list": {"train.ema_decays": [[0.5]]},
    "a text for a number": {"train.batch_size": "16"},
    "a flag for a number": {"train.batch_size": True},
    "not finite": {"train.learning_rate": float("nan")},
    "out of range": {"model.layers": 0},
    "an object for a number": {"seed": {}},
    "values that do not fit together": {"model.features": 7},
    "lines in a name": {"x\ny": 1},
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_config_json_is_one_line_for_every_command(damage, tmp_path, capsys):
    roll = FOLDER / "swiss_roll.py"
    workdir.claim(tmp_path, config.load(roll).get_config(), roll)
    file = tmp_path / "config.json"
    if isinstance(damage, dict):
        stored = json.loads(file.read_text())
        for key, value in damage.items():
            *sections, name = key.split(".")
            holder = stored if key == "config_file" else stored["config"]
            for section in sections:
                holder = holder[section]
            holder[name] = value
        damage = json.dumps(stored)
    file.write_bytes(damage if isinstance(damage, bytes) else damage.encode())
    before = file.read_bytes()
    for main, more in {
        train.main: ["--config", str(roll)],
        sample.main: ["--num", "1"],
        evaluate.main: ["--num", "1", "--extractor", "digits"],
    }.items():
        with pytest.raises(SystemExit, match="2"):
            cli.run(main, ["--workdir", str(tmp_path), *more])
        (said,) = capsys.readouterr().err.strip().splitlines()
        assert said.startswith("error: ")
        assert len(said) < 800
        assert "no checkpoint" not in said
    assert file.read_bytes() == before
