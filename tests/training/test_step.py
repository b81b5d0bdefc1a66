"""One step function on 1, 2 and 8 devices. SGD, because Adam hides a gradient of the wrong size."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.core import rng
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.parallel.replicated import AXIS, MAPPED, DataParallel
from diffusion_jax.training.state import init_state
from diffusion_jax.training.step import make_train_step
from tests import compilations, tiny

pytestmark = pytest.mark.slow

STEPS, BATCH = 3, 16


@pytest.fixture(scope="module")
def experiment():
    return tiny.build(tiny.get_config())


@pytest.fixture(scope="module")
def batches(experiment):
    source = experiment.data.source("train")
    images = np.stack([source[i]["image"] for i in range(STEPS * BATCH)])
    return images.reshape(STEPS, BATCH, 8, 8, 1)


def train(experiment, batches, devices, accumulate=1, shares=MAPPED):
    """Parameters and losses after some SGD steps, and how many programs were compiled on the way."""
    optimizer = optax.sgd(0.5)
    data_parallel = DataParallel(jax.devices()[:devices])
    state = data_parallel.hold(init_state(experiment.task.init, optimizer, experiment.task.times, jax.random.key(1)))
    of_share = make_train_step(experiment.task.loss, experiment.task.times, optimizer, 0.9, 3, accumulate, shares)
    step = data_parallel.train_step(of_share)
    losses, counts = [], []
    with compilations.counted() as compiled:
        for images in batches:
            state, metrics = step(state, data_parallel.shard({"image": images}))
            losses.append(float(metrics["loss"]))
            counts.append(len(compiled))
    return jax.device_get(state), losses, counts


@pytest.fixture(scope="module")
def on_one(experiment, batches):
    return train(experiment, batches, 1)


@pytest.mark.parametrize("devices", [2, 8])
def test_the_number_of_devices_does_not_change_what_is_learned(experiment, batches, on_one, devices):
    """Dropout is on: each example has its own masks, wherever it is."""
    one, one_losses, _ = on_one
    many, many_losses, _ = train(experiment, batches, devices)
    np.testing.assert_allclose(many_losses, one_losses, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(one.params), jax.tree.leaves(many.params), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("accumulate", [2, 8])
def test_parts_of_a_batch_teach_the_same(experiment, batches, on_one, accumulate):
    one, one_losses, _ = on_one
    parts, losses, counts = train(experiment, batches, 1, accumulate)
    np.testing.assert_allclose(losses, one_losses, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(one.params), jax.tree.leaves(parts.params), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=2e-6)
    assert counts[-1] == counts[1]  # nothing is compiled from step to step


def test_parts_must_divide_the_share(experiment, batches):
    with pytest.raises(InputError, match="16 examples a device in 3 parts"):
        train(experiment, batches, 1, accumulate=3)


def test_that_comparison_can_fail(experiment, batches, on_one):
    """Control: if devices counted their examples from 0, all would share the first one's randomness."""
    _, losses, _ = train(experiment, batches, 2, shares=MAPPED._replace(indices=jnp.arange))
    assert max(abs(a / b - 1) for a, b in zip(losses, on_one[1], strict=True)) > 1e-3


def test_what_the_drawing_of_times_remembers_is_the_same_on_every_number_of_devices():
    """A loss of one multiplication, so that this compiles at once."""
    times = time_sampling.loss_aware(num=4, kept=2)

    def loss(keys, params, batch, context):
        return params * batch["image"] * context.t, {}

    def memory(devices):
        data_parallel = DataParallel(jax.devices()[:devices])
        state = init_state(lambda key: jnp.ones(()), optax.sgd(0.1), times, jax.random.key(0))
        step = data_parallel.train_step(make_train_step(loss, times, optax.sgd(0.1), 0.9, seed=3))
        state = data_parallel.hold(state)
        for _ in range(6):
            state, _ = step(state, data_parallel.shard({"image": np.arange(1.0, 17.0, dtype=np.float32)}))
        return jax.device_get(state.memory)

    one, many = memory(1), memory(8)
    np.testing.assert_array_equal(one.count, many.count)
    np.testing.assert_allclose(one.losses, many.losses, rtol=5e-6)
    assert one.count.sum() == 6 * 16
    assert (one.losses != 0).all()


def test_nothing_is_compiled_after_the_first_step(on_one):
    _, _, counts = on_one
    assert counts[0] >= 1
    assert counts[1:] == [counts[0]] * (STEPS - 1)


def test_a_step_never_calls_the_host(experiment, batches):
    """No callback stands in its program; the control, whose loss prints, has one."""
    task, optimizer = experiment.task, optax.sgd(0.1)
    state = jax.eval_shape(lambda key: init_state(task.init, optimizer, task.times, key), jax.random.key(1))

    def program(loss):
        step = make_train_step(loss, task.times, optimizer, 0.9, seed=3)
        mapped = jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=(None, None), devices=jax.devices()[:1])
        return mapped.lower(state, {"image": batches[:1]}).as_text()

    def printing(*inputs):
        jax.debug.print("a step")
        return task.loss(*inputs)

    assert "callback" not in program(task.loss)
    assert "callback" in program(printing)


def test_the_step_given_away_is_gone(experiment, batches):
    """The state is donated: two copies of parameters and moments never exist side by side."""
    optimizer = optax.adam(1e-3)
    data_parallel = DataParallel(jax.devices()[:1])
    step = data_parallel.train_step(
        make_train_step(experiment.task.loss, experiment.task.times, optimizer, 0.9, seed=3)
    )
    state = data_parallel.hold(init_state(experiment.task.init, optimizer, experiment.task.times, jax.random.key(1)))
    batch = data_parallel.shard({"image": batches[0]})
    state, _ = step(state, batch)
    step(state, batch)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.ema, state.optimizer)))


@pytest.mark.parametrize("batch_size", [0, 12])
def test_a_batch_that_does_not_divide_is_refused_with_one_that_does(batch_size):
    with pytest.raises(InputError, match="8 devices; take 8 or"):
        DataParallel(jax.devices()[:8]).check_batch_size(batch_size)


def test_images_do_not_depend_on_the_devices_that_drew_them(experiment):
    params = jax.jit(experiment.task.init)(jax.random.key(0))
    keys = rng.per_example(jax.random.key(1), jnp.arange(8))

    def drawn(devices):
        data_parallel = DataParallel(jax.devices()[:devices])
        return data_parallel.sample(experiment.sampling.preview(8 // devices))(data_parallel.hold(params), keys)

    one = drawn(1)
    assert one.shape == (8, 8, 8, 1)
    np.testing.assert_allclose(drawn(8), one, atol=1e-5)


def test_sharding_keeps_the_order():
    shards = DataParallel(jax.devices()[:4]).shard({"image": np.arange(8)})
    np.testing.assert_array_equal(shards["image"], np.arange(8).reshape(4, 2))
