"""The experiment that judges text: its counting models, and the command from end to end."""

import numpy as np
import pytest

from diffusion_jax import train
from diffusion_jax.app import cli
from experiments import text_quality

pytestmark = pytest.mark.slow

TINY = [
    *("--config.model.features=8", "--config.model.layers=1", "--config.model.heads=2", "--config.data.length=16"),
    *("--config.train.batch_size=8", "--config.train.steps=2", "--config.log.sample_every=0"),
]


def test_counting_models_of_a_sequence_with_memory():
    """A chain that repeats its last symbol with probability 0.9: order 0 pays 1 bit, order 1 its entropy rate."""
    rng = np.random.default_rng(0)
    stream = np.cumsum(rng.random(100_000) < 0.1) % 2
    none, one, two = text_quality.orders(stream, stream[:20_000].reshape(-1, 20), vocab=2)
    rate = -(0.9 * np.log2(0.9) + 0.1 * np.log2(0.1))
    assert abs(none - 1) < 0.01
    assert abs(one - rate) < 0.02
    assert abs(two - one) < 0.005


def test_nothing_is_impossible_for_them():
    values = text_quality.orders(np.array([0, 1, 0, 1]), np.array([[2, 2, 2]]), vocab=3)
    assert np.isfinite(values).all()


@pytest.mark.exhaustive
def test_the_table_of_a_run(tmp_path, capsys):
    run = tmp_path / "run"
    cli.run(train.main, ["--config", "configs/text.py", "--workdir", str(run), *TINY])
    text_quality.main(["--workdir", str(run), "--pieces", "64", "--times", "1"])
    lines = capsys.readouterr().out.splitlines()
    bits = {line[:28].strip(): float(line.split()[-1]) for line in lines if line.startswith(("masked", "order"))}
    # After two steps the model knows nothing: about log2 of its 96 characters, with the noise of one pass.
    assert 4 < bits["masked diffusion"] < 9
    assert bits["order 2"] < bits["order 1"] < bits["order 0"] < 5.5
