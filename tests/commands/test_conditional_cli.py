"""Labels, classifiers and hints from the command line: what is trained, what is told, and mistakes in one line."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from diffusion_jax import sample, train
from diffusion_jax.app import resolve
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sources
from diffusion_jax.diffusion import guidance, losses
from diffusion_jax.training import workdir
from diffusion_jax.training.checkpoint import Checkpoints
from tests import tiny
from tests.commands.test_cli import run

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]

PARTS = {
    "guided": """
def get_config():
    return guided.with_guidance(tiny.get_config())

def build(config):
    data = pixels.with_labels(pixels.data(config, sources.digits), 10)
    return guided.build(config, data, 10, pixels.unet(config, 2, embed={"label": LabelEmbedding(11)}))
""",
    "classifier": """
def get_config():
    return tiny.get_config()

def build(config):
    data = pixels.with_labels(pixels.data(config, sources.digits), 10)
    return classifier.build(config, data, Classifier(pixels.unet(config), 10))
""",
    "control": """
def get_config():
    return control.with_base(tiny.get_config())

def build(config):
    data = pixels.with_edges(pixels.data(config, sources.digits))
    return control.build(config, data, pixels.unet(config))
""",
}
IMPORTS = """
from diffusion_jax.data import sources
from diffusion_jax.models.judges.classifier import Classifier
from diffusion_jax.models.blocks.conditioning import LabelEmbedding
from diffusion_jax.methods import classifier, control, guided, pixels
from tests import tiny
"""
# Few steps, and large ones: what a label changes is then seen in pixels.
SHORT = tuple(f"--config.train.{x}" for x in ("steps=3", "learning_rate=0.03", "warmup_steps=1", "ema_decay=0.0"))
SHORT += ("--config.model.multipliers=1,", "--config.model.attention_levels=0,")  # one level: less to compile


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A work directory of each, a few steps of training old; and of the plain model that two of them build on."""
    root = tmp_path_factory.mktemp("runs")
    assert run(train.main, "--config", tiny.__file__, "--workdir", root / "plain", *SHORT) == 0
    for name, parts in PARTS.items():
        (root / f"{name}.py").write_text(IMPORTS + parts)
        more = [f"--config.control.base={root / 'plain'}"] if name == "control" else []
        assert run(train.main, "--config", root / f"{name}.py", "--workdir", root / name, *SHORT, *more) == 0
    return root


def drawn(folder, out, *options):
    assert run(sample.main, "--workdir", folder, "--num", 4, "--steps", 3, "--out", out, *options) == 0
    return np.load(out / "samples.npz")["images"].astype(int), dict(np.load(out / "condition.npz"))


def test_labels_are_followed_and_kept(runs, tmp_path):
    three, told = drawn(runs / "guided", tmp_path / "a", "--label", "3,8", "--guidance", 1)
    np.testing.assert_array_equal(told["label"], [3, 8, 3, 8])
    # The same noise with another label is another image; with the same it is the same.
    other, told = drawn(runs / "guided", tmp_path / "b", "--guidance", 1)
    np.testing.assert_array_equal(told["label"], [0, 1, 2, 3])
    mixed, _ = drawn(runs / "guided", tmp_path / "c", "--condition", "label=3,1", "--guidance", 1)
    assert np.abs(mixed[:2] - np.stack([three[0], other[1]])).max() <= 1
    strong, _ = drawn(runs / "guided", tmp_path / "d", "--label", "3,8", "--guidance", 5, "--film")
    assert (strong != three).any()
    assert (tmp_path / "d" / "film.gif").exists()


def test_numbers_on_a_command_line_are_arrays():
    np.testing.assert_array_equal(resolve.numbers("label=3,8")["label"], [3, 8])
    assert resolve.numbers("label=3")["label"].dtype == np.int64
    thick = resolve.numbers("thick=0.5,1")["thick"]
    assert thick.dtype == np.float32
    np.testing.assert_array_equal(thick, [0.5, 1.0])
    assert resolve.numbers("a/b=3.npz") == resolve.numbers("hints.npz") == {}
    with pytest.raises(InputError, match="give numbers"):
        resolve.numbers("thick=nan")


def test_a_classifier_guides_a_model_without_labels(runs, tmp_path):
    by = ("--classifier", runs / "classifier", "--sampler", "ddim")
    plain, _ = drawn(runs / "plain", tmp_path / "a", *by, "--guidance", 0)
    guided_, told = drawn(runs / "plain", tmp_path / "b", *by, "--guidance", 100)
    assert set(told) == {"label"}
    assert (plain != guided_).any()


def test_a_controlnet_hears_hints_and_leaves_its_base_alone(runs, tmp_path):
    hint = np.zeros((1, 8, 8, 1), np.float32)
    np.savez(tmp_path / "hint.npz", hint=hint)
    _, told = drawn(runs / "control", tmp_path / "a")
    assert told["hint"].shape == (4, 8, 8, 1)
    assert told["hint"].max() > 0.3
    _, told = drawn(runs / "control", tmp_path / "b", "--condition", tmp_path / "hint.npz")
    assert not told["hint"].any()

    def stored(name, item):
        module, values = workdir.open_existing(runs / name)
        template = jax.eval_shape(module.build(values).task.init, jax.random.key(0))
        with Checkpoints(runs / name / "checkpoints") as checkpoints:
            return traverse_util.flatten_dict(checkpoints.restore(item, template)[1], sep="/")

    base = stored("plain", "ema")
    for item in ("params", "ema"):
        found = stored("control", item)
        for name, value in base.items():
            np.testing.assert_array_equal(found[f"unet/{name}"], value)
    # Control: the ControlNet itself has moved, from its last layers on.
    assert found["control/control_middle/kernel"].any()


def test_no_gradient_reaches_the_base(runs):
    module, values = workdir.open_existing(runs / "control")
    experiment = module.build(values)
    params = jax.jit(experiment.task.init)(jax.random.key(0))
    params = jax.tree.map(lambda x: x + 0.1, params)
    batch = {"image": np.stack([sources.digits()[i]["image"] for i in range(2)])}
    keys = jax.random.split(jax.random.key(1), 2)
    context = losses.Context(np.array([0.3, 0.6], np.float32))
    slope = jax.jit(jax.grad(lambda p: experiment.task.loss(keys, p, batch, context)[0].mean()))
    gradient = slope(params)
    assert not any(leaf.any() for leaf in jax.tree.leaves(gradient["unet"]))
    assert all(leaf.any() for leaf in jax.tree.leaves(gradient["control"]["hint"]))
    # The optimiser keeps nothing for what is frozen.
    states = jax.tree.leaves(jax.eval_shape(experiment.optimization.optimizer.transformation.init, params))
    trained = sum(leaf.size for leaf in jax.tree.leaves(params["control"]))
    assert sum(leaf.size for leaf in states) < 2 * trained + 10


def test_a_share_is_not_told(x64):
    """Of 4000 examples with rate 0.2, the share told nothing: 5 binomial deviations are 0.032, 1 in 1.7 million."""
    asked = []

    def loss(keys, params, x0, t, cond):
        asked.append(cond["label"])
        return t

    keys = jax.random.split(jax.random.key(0), 4000)
    null = guidance.replacing(label=10)
    label = np.arange(4000) % 10
    losses.withholding(loss, null, 0.2)(keys, None, None, np.zeros(4000), {"label": label})
    losses.withholding(loss, null, 0.0)(keys, None, None, np.zeros(4000), {"label": label})
    hidden = np.asarray(asked[0]) == 10
    assert abs(hidden.mean() - 0.2) < 0.032
    np.testing.assert_array_equal(np.asarray(asked[0])[~hidden], label[~hidden])
    np.testing.assert_array_equal(asked[1], label)
    with pytest.raises(InputError, match="not told its condition"):
        losses.withholding(loss, null, 1.5)


MISTAKES = [
    ("plain", ["--label", "3"], "takes no condition, but label was given"),
    ("plain", ["--guidance", "2"], "add --classifier DIR"),
    ("guided", ["--label", "10,11"], "there is no label 11"),
    ("guided", ["--label", "three"], "give whole numbers with commas between"),
    ("guided", ["--condition", "nothing.npz"], "cannot read nothing.npz"),
    ("guided", ["--condition", "label=3,x"], "give numbers, such as label=0.3 or label=1,2, or an .npz"),
    ("guided", ["--condition", "label=0.5"], "labels are a list of whole numbers"),
    ("guided", ["--condition", "label=3", "--label", "8"], "label is given already; give it once"),
    ("guided", ["--classifier", "{root}/classifier"], "no sampler of this model takes --classifier; leave it out"),
    ("plain", ["--classifier", "{root}/guided"], "holds no classifier"),
    ("classifier", [], "draws nothing; give it as --classifier"),
    ("control", ["--label", "3"], "takes no condition 'label', only hint"),
]


@pytest.mark.parametrize(("name", "options", "said"), MISTAKES, ids=[said for *_, said in MISTAKES])
def test_a_mistake_gets_one_line(runs, name, options, said, capsys):
    options = [option.format(root=runs) for option in options]
    assert run(sample.main, "--workdir", runs / name, *options) == 2
    output = capsys.readouterr().err.strip()
    assert len(output.splitlines()) == 1
    assert said in output


@pytest.mark.parametrize(("base", "said"), [("", "no model to control"), ("nowhere", "no trained model in nowhere")])
def test_a_controlnet_needs_a_base(runs, base, said, tmp_path, capsys):
    base = f"--config.control.base={base}"
    assert run(train.main, "--config", runs / "control.py", "--workdir", tmp_path / "new", *SHORT, base) == 2
    assert said in capsys.readouterr().err
