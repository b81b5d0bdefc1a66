"""Autoregressive models as a method: what is trained is the likelihood, and the command lines know them."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from diffusion_jax import evaluate, sample, train
from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.data import sources, views
from diffusion_jax.diffusion import losses, time_sampling
from diffusion_jax.methods import pixelcnn
from diffusion_jax.methods.compose import Data, base_config
from diffusion_jax.training.experiment import SampleRequest
from tests.commands.test_cli import run
from tests.models.raster_tiny import made, redrawn

pytestmark = pytest.mark.slow


def test_any_tokens_are_data_and_the_loss_is_their_likelihood():
    """Codes [H, W] without a channel: the loss in nats a token is what `exact` says in bits."""
    codes = np.random.default_rng(0).integers(0, 5, (6, 3, 4)).astype(np.int32)
    data = Data(
        source=lambda split: codes,
        example={"codes": jax.ShapeDtypeStruct((3, 4), jnp.int32)},
        clean=lambda batch: batch["codes"],
        shape=(3, 4),
        view=views.levels(5),
    )
    model = made("GatedPixelCNN", 5, layers=2)
    experiment = pixelcnn.build(pixelcnn.with_small_network(base_config()), data, model, 5)
    params = redrawn(model, codes)
    keys, times = rng.per_example(rng.root(0), jnp.arange(6)), time_sampling.none()
    t, _ = times.draw(times.init(), rng.root(0), jnp.arange(6), 6)
    loss, _ = jax.jit(experiment.task.loss)(keys, params, {"codes": codes}, losses.Context(t))
    exact = jax.jit(experiment.measures.likelihoods["exact"](None))(params, keys, codes)
    np.testing.assert_allclose(loss, exact.total * np.log(2), rtol=1e-5)
    drawn = jax.eval_shape(experiment.sampling.samplers["raster"](SampleRequest(7)), params, rng.root(0))
    assert (drawn.shape, drawn.dtype) == ((7, 3, 4), jnp.int32)
    other = pixelcnn.build(pixelcnn.with_small_network(base_config()), data, model, 6)
    with pytest.raises(InputError, match=r"the network answers \(6, 3, 4, 5\) where logits \(6, 3, 4, 6\) are read"):
        jax.eval_shape(other.task.loss, keys, params, {"codes": codes}, losses.Context(t))
    started = jax.eval_shape(experiment.task.init, rng.root(0))
    assert jax.tree.map(jnp.shape, started) == jax.tree.map(jnp.shape, params)


@pytest.mark.exhaustive
def test_the_command_lines_train_draw_complete_and_measure(tmp_path, capsys):
    config = "configs/pixelcnn_pixels.py"
    small = [f"--config.model.{x}" for x in ("features=8", "layers=2", "head_features=8")]
    few = [f"--config.train.{x}" for x in ("steps=20", "learning_rate=0.03", "warmup_steps=1", "ema_decay=0.0")]
    folder, out = tmp_path / "run", tmp_path / "out"
    few += ["--config.log.samples=4", "--config.log.sample_every=20"]
    assert run(train.main, "--config", config, "--workdir", folder, *small, *few) == 0
    given = ("--workdir", folder, "--num", 4, "--out")
    assert run(sample.main, *given, out / "film", "--film", "--label", "3,8") == 0
    assert Image.open(out / "film" / "film.gif").n_frames > 4
    np.testing.assert_array_equal(np.load(out / "film" / "condition.npz")["label"], [3, 8, 3, 8])
    assert run(sample.main, *given, out / "guided", "--guidance", 3, "--label", "3,8") == 0
    drawn = {name: np.load(out / name / "samples.npz")["images"] for name in ("film", "guided")}
    assert (drawn["film"] != drawn["guided"]).any()
    # The upper half of a digit is kept, and the lower drawn.
    digit, mask = sources.digits("test")[0]["image"], np.zeros((8, 8), np.uint8)
    mask[:4] = 255
    Image.fromarray(digit[..., 0]).save(tmp_path / "digit.png")
    Image.fromarray(mask).save(tmp_path / "mask.png")
    known = ("--inpaint", tmp_path / "digit.png", "--mask", tmp_path / "mask.png")
    assert run(sample.main, *given, out / "known", *known) == 0
    found = np.load(out / "known" / "samples.npz")["images"]
    np.testing.assert_array_equal(found[:, :4], np.broadcast_to(digit[:4], (4, 4, 8, 1)))
    assert len(np.unique(found[:, 4:].reshape(4, -1), axis=0)) == 4
    capsys.readouterr()
    measured = ("--workdir", folder, "--num", 0, "--likelihood", "exact", "--examples", 64)
    assert run(evaluate.main, *measured) == 0
    assert 1 < float(re.search(r"exact, bits an entry +(\S+)", capsys.readouterr().out)[1]) < np.log2(17) + 1
    for main, arguments, said in (
        (evaluate.main, (*measured, "--steps", 5), "--steps 5: this likelihood is exact after one look"),
        (sample.main, (*given, out / "no", "--steps", 5), "no sampler of this model takes --steps; leave it out"),
        (train.main, ("--config", config, "--workdir", out / "no", "--config.model.side=4"), "side 4: a window"),
    ):
        assert run(main, *arguments) == 2
        assert said in capsys.readouterr().err
    assert not (out / "no").exists()
