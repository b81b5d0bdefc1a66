"""docs/how_to/network.md runs as it stands: each kind of network trains, and what it learned draws."""

import importlib.util
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from diffusion_jax.diffusion.losses import Context
from diffusion_jax.methods.compose import compose
from diffusion_jax.parallel.replicated import DataParallel
from diffusion_jax.training.experiment import SampleRequest
from diffusion_jax.training.state import init_state
from diffusion_jax.training.step import make_train_step

pytestmark = pytest.mark.slow

PAGE = (Path(__file__).parent.parent.parent / "docs" / "how_to" / "network.md").read_text()


@pytest.fixture(scope="module")
def names():
    found, there = {}, importlib.util.find_spec("equinox")
    for code in re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE):
        if there or "equinox" not in code:
            exec(code, found)
    return found


@pytest.mark.parametrize("kind", ["Linen", "plain", "of_nnx", "of_equinox"])
def test_a_network_of_any_kind_trains_and_draws(names, kind):
    if kind == "of_equinox":
        pytest.importorskip("equinox", reason="Equinox is not installed")
    config = names["get_config"]()
    config.train.update({"warmup_steps": 0, "learning_rate": 1e-2})
    method = names["build"](config).method
    model = method.model if kind == "Linen" else names[kind]
    experiment = compose(config, method._replace(model=model))
    parallel = DataParallel(jax.devices()[:1])
    task, optimizer = experiment.task, experiment.optimization.optimizer.transformation
    state = parallel.hold(init_state(task.init, optimizer, task.times, jax.random.key(0)))
    step = make_train_step(task.loss, task.times, optimizer, 0.9, seed=0)
    compiled, source = parallel.train_step(step), experiment.data.source("train")
    batch = {"point": np.stack([source[i]["point"] for i in range(256)])}
    context = Context(jnp.linspace(0.05, 0.95, 256))
    keys = jax.random.split(jax.random.key(2), 256)
    loss = jax.jit(lambda params: experiment.task.loss(keys, params, batch, context)[0])
    before = loss(jax.device_get(state.params)).mean()
    for _ in range(200):
        state, _ = compiled(state, parallel.shard(batch))
    assert loss(jax.device_get(state.params)).mean() < before - 0.01  # on the same noise
    sample = jax.jit(experiment.sampling.samplers["ddim"](SampleRequest(8, steps=3)))
    drawn = sample(jax.device_get(state.params), jax.random.key(1))
    assert drawn.shape == (8, 2)
    assert np.isfinite(drawn).all()
