"""The seam that coming methods need: each test is a method of its own kind, small enough to be checked by hand."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.autoencoding import sequential
from diffusion_jax.core import rng
from diffusion_jax.core.distributions import Gaussian
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import processes, schedules, time_sampling
from diffusion_jax.diffusion.few_step import mean_flow, shortcut
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.parallel.replicated import DataParallel
from diffusion_jax.parallel.sharded import Sharded
from diffusion_jax.pretrained.formats import safetensors_file
from diffusion_jax.training.averages import Average, exponential
from diffusion_jax.training.loop import fit
from diffusion_jax.training.state import init_state
from diffusion_jax.training.step import make_train_step
from experiments.strangers import small
from tests import changed
from tests.diffusion.few_step.exact import MAP

pytestmark = pytest.mark.slow

BATCH, D, K = 16, 3, 4
TIMES = time_sampling.independent(time_sampling.uniform())
X = np.random.default_rng(0).normal(size=(5, BATCH, D)).astype(np.float32)
WAYS = {
    "one device": lambda: (DataParallel(jax.devices()[:1]), 1),
    "eight devices": lambda: (DataParallel(jax.devices()[:8]), 1),
    "accumulated": lambda: (DataParallel(jax.devices()[:2]), 4),
    "spread": lambda: (Sharded(jax.devices()[:4], least=1), 2),
}


def trained(loss, init, optimizer, way="one device", averages=(), held=None, steps=5, times=TIMES):
    """(state, metrics of every step) after some steps on `X`."""
    parallel, accumulate = WAYS[way]()
    averages = dict(averages)
    state = parallel.hold(init_state(init, optimizer, times, jax.random.key(0), averages))
    made = make_train_step(loss, times, optimizer, 0.9, 3, accumulate, parallel.shares, averages)
    step, held = parallel.train_steps(made, 1), parallel.place(held or {})
    told = []
    for x in X[:steps]:
        state, metrics = step(state, [parallel.shard({"x": x})], held)
        told.append({name: float(value[0]) for name, value in metrics.items()})
    return jax.device_get(state), told


def same(one, other, tolerance=2e-6):
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


# ---- A variational autoencoder: two terms, both logged.


def vae(keys, params, batch, context):
    x = batch["x"]
    mean, log_std = x @ params["encode"], params["log_std"]
    z = mean + jnp.exp(log_std) * rng.normal_like(rng.each(keys, 0), mean)
    distortion = ((z @ params["decode"] - x) ** 2).sum(-1) / 2
    rate = ((mean**2 + jnp.exp(2 * log_std) - 1) / 2 - log_std).sum(-1)
    return distortion + rate, {"distortion": distortion, "rate": rate}


def vae_init(key):
    encode, decode = jax.random.split(key)
    shape = jax.random.normal
    return {"encode": shape(encode, (D, 2)), "decode": shape(decode, (2, D)), "log_std": jnp.zeros(2)}


@pytest.mark.parametrize("way", WAYS)
def test_terms_are_logged_and_add_up_however_the_batch_is_split(way):
    _, told = trained(vae, vae_init, optax.sgd(0.01), way, times=time_sampling.none())
    _, alone = trained(vae, vae_init, optax.sgd(0.01))
    for now, one in zip(told, alone, strict=True):
        assert now.keys() == {"loss", "grad_norm", "distortion", "rate"}
        np.testing.assert_allclose(now["distortion"] + now["rate"], now["loss"], rtol=1e-5)
        np.testing.assert_allclose([*now.values()], [*one.values()], rtol=1e-5)
    # By hand: the rate of the first step.
    mean = X[0] @ vae_init(rng_of_init())["encode"]
    np.testing.assert_allclose(told[0]["rate"], (mean**2).sum(-1).mean() / 2, rtol=1e-5)


def rng_of_init():
    return jax.random.key(0)


def test_a_name_that_the_log_has_is_refused():
    def loss(keys, params, batch, context):
        return batch["x"].sum(-1) * params["a"], {"loss": context.t}

    with pytest.raises(InputError, match="the loss logs 'loss', which the log has already"):
        trained(loss, lambda key: {"a": jnp.ones(())}, optax.sgd(0.1))


# ---- A model of sequences: each example's key draws its jump.


def gaussian(mean):
    return lambda above: Gaussian(mean, jnp.ones_like(mean))


SEQUENCES = sequential.StateSpace(
    layers=1,
    summary=lambda params, x: jnp.pad(jnp.cumsum(x, 1), ((0, 0), (1, 0), (0, 0))) * params["remember"],
    belief=lambda params, b: gaussian(b * params["believe"]),
    smoothing=lambda params, z2, b1, b2, jump: gaussian(b1 + z2[0] * params["smooth"] * jump[:, None]),
    transition=lambda params, z1, jump: gaussian(z1[0] * params["move"] * jump[:, None]),
    decoder=lambda params, z: gaussian(z[0] * params["decode"])(()),
)


def sequences(keys, params, batch, context):
    return sequential.loss(SEQUENCES, 1, 2, jumps=2)(keys, params, batch["x"][..., None], context)


@pytest.mark.parametrize("way", ["eight devices", "accumulated"])
def test_jumps_do_not_depend_on_how_the_batch_is_split(way):
    def init(key):
        return {name: jnp.full((), 0.5) for name in ("remember", "believe", "smooth", "move", "decode")}

    together, told = trained(sequences, init, optax.sgd(0.01), way, times=time_sampling.none(), steps=2)
    one, alone = trained(sequences, init, optax.sgd(0.01), times=time_sampling.none(), steps=2)
    same(together.params, one.params)
    assert {"distortion", "surprise", "smoothing"} < told[0].keys()
    np.testing.assert_allclose([*told[1].values()], [*alone[1].values()], rtol=1e-5)


# ---- A codebook that is an average: statistics of the batch come out as gradients.

DECAY = 0.8


def codebook(keys, params, batch, context):
    """Vector quantisation (van den Oord et al. 2017, appendix A.1): counts and sums follow those of the batch."""
    counts, sums = params["codes"]["counts"], params["codes"]["sums"]
    codes = jax.lax.stop_gradient(sums / counts[:, None])
    x = batch["x"] @ params["encode"]
    near = jax.lax.stop_gradient(jax.nn.one_hot(((x[:, None] - codes) ** 2).sum(-1).argmin(-1), K))
    error = ((x - near @ codes) ** 2).sum(-1)

    def follow(moving, found):
        """0, with gradient moving - found: plain descent of rate 1 - decay is then the average's update."""
        constant = jax.lax.stop_gradient(moving)
        return ((moving - constant) * jax.lax.stop_gradient(constant - found)).reshape(len(x), -1).sum(-1)

    value = follow(counts[None], near) + follow(sums[None], near[:, :, None] * jax.lax.stop_gradient(x)[:, None])
    return error + value, {"used": near.max(-1)}


def codebook_init(key):
    sums = jax.random.normal(key, (K, D))
    return {"encode": jnp.eye(D), "codes": {"counts": jnp.ones(K), "sums": sums}}


def by_part(params):
    return {name: name for name in params}


def codebook_optimizer():
    return optax.partition({"encode": optax.sgd(0.01), "codes": optax.sgd(1 - DECAY)}, by_part)


@pytest.mark.parametrize("way", WAYS)
def test_a_moving_codebook_is_the_same_however_the_batch_is_split(way):
    state, _ = trained(codebook, codebook_init, codebook_optimizer(), way)
    by_hand = jax.device_get(codebook_init(rng_of_init()))
    encode, counts, sums = by_hand["encode"], by_hand["codes"]["counts"], by_hand["codes"]["sums"]
    for batch in X:
        x, codes = batch @ encode, sums / counts[:, None]
        near = np.eye(K)[((x[:, None] - codes) ** 2).sum(-1).argmin(-1)]
        gradient = 2 * batch.T @ (x - near @ codes) / BATCH
        counts = DECAY * counts + (1 - DECAY) * near.mean(0)
        sums = DECAY * sums + (1 - DECAY) * near.T @ x / BATCH
        encode = encode - 0.01 * gradient
    same(state.params, {"encode": encode, "codes": {"counts": counts, "sums": sums}}, 1e-5)
    assert np.abs(sums - by_hand["codes"]["sums"]).max() > 0.1  # control: they have moved


# ---- Consistency with a target that is an average, and a teacher that is held.

MU, RATE = 0.5, 0.05


def consistency(keys, params, batch, context):
    """The network at t meets the target network one step of the teacher's further down."""
    x, t = batch["x"], context.t[:, None]
    teacher, target = context.held["teacher"]["w"], context.averages["target"]["w"]
    x_t = x + t * rng.normal_like(rng.each(keys, 0), x)
    further = x_t - 0.1 * (x_t @ teacher)
    return ((x_t @ params["w"] - further @ target) ** 2).sum(-1), {}


def linear(key):
    return {"w": jax.random.normal(key, (D, D))}


TEACHER = {"teacher": {"w": np.random.default_rng(1).normal(size=(D, D)).astype(np.float32)}}
TARGET = {"target": Average(lambda step: 1 - MU)}  # at no step does it forget its start


@pytest.mark.parametrize("way", WAYS)
def test_a_target_is_an_average_and_a_teacher_is_held(way):
    state, _ = trained(consistency, linear, optax.sgd(RATE), way, TARGET, TEACHER)
    # By hand, with the target and the teacher as constants.
    params = target = linear(rng_of_init())

    def loss(params, target, keys, x, t):
        return consistency(keys, params, {"x": x}, Context(t, 0, {"target": target}, TEACHER))[0].mean()

    for number, x in enumerate(X):
        index = jnp.arange(BATCH)
        keys = rng.per_example(rng.stream(rng.root(3), "train", number), index)
        t, _ = TIMES.draw((), rng.stream(rng.root(3), "times", number), index, BATCH)
        slope = jax.grad(loss)(params, target, keys, x, t)
        params = jax.tree.map(lambda p, g: p - RATE * g, params, slope)
        target = jax.tree.map(lambda a, p: MU * a + (1 - MU) * p, target, params)
    same((state.params, state.averages["target"]), (params, target), 2e-5)
    # Controls: another teacher, or a target that forgets its start, come out elsewhere.
    other = trained(consistency, linear, optax.sgd(RATE), way, TARGET, jax.tree.map(np.negative, TEACHER))[0]
    forgetful = trained(consistency, linear, optax.sgd(RATE), way, {"target": exponential(MU)}, TEACHER)[0]
    for control in (other, forgetful):
        assert np.abs(control.params["w"] - state.params["w"]).max() > 1e-3


# ---- A flow map: spans stand for times, and the target is the average that samples are drawn with.

SPANS = shortcut.spans(8, 0.25)


def flow_map(keys, params, x, context):
    """MeanFlow and a shortcut model at once, of one linear map of where, when and how far."""

    def apply(params, x, times, dropout_keys=None):
        return jnp.concatenate([x, *(each[:, None] * x for each in times)], -1) @ params["w"]

    parts = apply, MAP, processes.gaussian(schedules.flow())
    one, info = mean_flow.mean_flow(*parts)(keys, params, x, context)
    other, more = shortcut.shortcut(*parts, 8)(keys, params, x, context)
    return one + other, info | more


def flow_map_init(key):
    return {"w": 0.1 * jax.random.normal(key, (3 * D, D))}


@pytest.mark.parametrize("way", WAYS)
def test_a_flow_map_is_the_same_however_the_batch_is_split(way):
    def loss(keys, params, batch, context):
        return flow_map(keys, params, batch["x"], context)

    state, told = trained(loss, flow_map_init, optax.sgd(0.1), way, times=SPANS)
    one, alone = trained(loss, flow_map_init, optax.sgd(0.1), times=SPANS)
    same(state.params, one.params, 1e-5)
    for now, before in zip(told, alone, strict=True):
        np.testing.assert_allclose([*now.values()], [*before.values()], rtol=1e-4)
        assert now["bootstrap"] > 0
        assert now["flow"] > 0
    # Control: it has learned.
    assert np.abs(one.params["w"] - flow_map_init(rng_of_init())["w"]).max() > 0.01


def test_a_flow_map_resumes_to_the_bit(tmp_path):
    def experiment(values):
        made = small.build(values)

        def init(key):
            return made.task.init(key) | {"w": 0.1 * jax.random.normal(key, (6, 2))}

        def loss(keys, params, batch, context):
            return flow_map(keys, params, batch["points"], context)

        return changed.task(made, init=init, loss=loss, times=SPANS)

    def run(workdir, steps):
        values = small.get_config()
        values.train.steps = steps
        return fit(experiment(values), values, workdir, devices=jax.devices()[:2])

    run(tmp_path / "halves", 4)
    halves, whole = run(tmp_path / "halves", 8), run(tmp_path / "whole", 8)
    for a, b in zip(jax.tree.leaves(halves), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_step_is_told():
    def loss(keys, params, batch, context):
        return params["w"].sum() * batch["x"].sum(-1), {"number": jnp.full(len(keys), context.step)}

    _, told = trained(loss, linear, optax.sgd(0.02))
    assert [each["number"] for each in told] == [0, 1, 2, 3, 4]


# ---- Two players, each with an optimiser of its own.


def players(keys, params, batch, context):
    """The critic's descent is the generator's ascent: each sees the other as a constant."""
    held = jax.lax.stop_gradient(params)
    made = rng.normal_like(rng.each(keys, 0), batch["x"])

    def score(critic, x):
        return jnp.tanh(x @ critic)

    critic = score(params["critic"], made + held["generator"]) - score(params["critic"], batch["x"])
    generator = -score(held["critic"], made + params["generator"])
    return critic + generator, {"critic": critic, "generator": generator}


def players_init(key):
    return {"critic": jax.random.normal(key, (D,)), "generator": jnp.zeros(D)}


def test_two_players_move_by_their_own_losses_and_optimisers():
    parts = {"critic": optax.sgd(0.1), "generator": optax.adam(0.01)}
    state, told = trained(players, players_init, optax.partition(parts, by_part), steps=1)
    split, _ = trained(players, players_init, optax.partition(parts, by_part), "spread", steps=1)
    same(state.params, split.params)
    np.testing.assert_allclose(told[0]["critic"] + told[0]["generator"], told[0]["loss"], rtol=1e-5)
    before = players_init(rng_of_init())
    keys = rng.per_example(rng.stream(rng.root(3), "train", 0), jnp.arange(BATCH))

    def alone(name):
        def loss(part):
            return players(keys, before | {name: part}, {"x": X[0]}, None)[1][name].mean()

        return jax.grad(loss)(before[name])

    moved = jax.tree.map(np.subtract, state.params, before)
    np.testing.assert_allclose(moved["critic"], -0.1 * alone("critic"), rtol=1e-4)
    np.testing.assert_allclose(moved["generator"], -0.01 * np.sign(alone("generator")), rtol=1e-3)


# ---- What a run holds is kept in its work directory.


def experiment(values, make):
    """`small`, whose loss looks at what is held."""
    made = small.build(values)

    def loss(keys, params, batch, context):
        value, _ = made.task.loss(keys, params, batch, context)
        return value + context.held["teacher"]["w"].sum() * (params["out"] ** 2).sum(), {}

    return changed.task(made, loss=loss, held=make)


def run(workdir, steps, make):
    values = small.get_config()
    values.train.steps = steps
    return fit(experiment(values, make), values, workdir, devices=jax.devices()[:2])


def lost():
    raise InputError("the teacher is gone")


def test_a_run_goes_on_with_what_it_began_with(tmp_path):
    run(tmp_path / "run", 4, lambda: TEACHER)
    shutil.move(tmp_path / "run", tmp_path / "moved")
    halves = run(tmp_path / "moved", 8, lost)  # nothing is read a second time
    whole = run(tmp_path / "whole", 8, lambda: TEACHER)
    for a, b in zip(jax.tree.leaves(halves), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    kept = safetensors_file.load(tmp_path / "whole" / "held.safetensors")
    np.testing.assert_array_equal(np.asarray(kept["teacher/w"]), TEACHER["teacher"]["w"])
    assert not any("teacher" in str(path) for path in (tmp_path / "whole" / "checkpoints").rglob("*"))
    assert json.loads((tmp_path / "whole" / "config.json").read_text())


def test_other_held_arrays_and_damaged_ones_are_refused(tmp_path):
    run(tmp_path / "run", 4, lambda: TEACHER)
    file = tmp_path / "run" / "held.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="is damaged; restore it"):
        run(tmp_path / "run", 8, lost)
    file.unlink()
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(InputError, match="was trained beside other held arrays"):
        run(tmp_path / "run", 8, lambda: jax.tree.map(np.negative, TEACHER))
    run(tmp_path / "other", 2, lambda: jax.tree.map(np.negative, TEACHER))
    shutil.copy(tmp_path / "other" / "held.safetensors", file)
    with pytest.raises(InputError, match="was trained beside other held arrays"):
        run(tmp_path / "run", 8, lost)
    file.unlink()
    assert sorted((tmp_path / "run").rglob("*")) == before
    run(tmp_path / "run", 8, lambda: TEACHER)  # the same once more


@pytest.mark.parametrize("wrong", [{"a/b": np.ones(2)}, [np.ones(2)], {"a": np.array("text")}], ids=str)
def test_what_cannot_be_kept_is_refused_before_anything_is_written(tmp_path, wrong):
    with pytest.raises(InputError, match="what the run holds"):
        run(tmp_path / "run", 2, lambda: wrong)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("way", ["eight devices", "spread, in one part"])
def test_a_loss_that_compares_the_examples_of_all_devices(way, monkeypatch):
    """What is learned is that of one device, by SGD, though every example is told apart from all others."""
    monkeypatch.setitem(WAYS, "spread, in one part", lambda: (Sharded(jax.devices()[:4], least=1), 1))

    def loss(keys, params, batch, context):
        y = batch["x"] @ params["w"]
        everyone = context.gather(y)
        assert everyone.shape == (BATCH, K)
        return jax.nn.logsumexp(y @ everyone.T, axis=-1) - jnp.sum(y**2, axis=-1), {}

    def init(key):
        return {"w": jax.random.normal(key, (D, K))}

    (one, said), (other, heard) = (trained(loss, init, optax.sgd(0.05), way) for way in ("one device", way))
    same(one.params, other.params)
    np.testing.assert_allclose([m["loss"] for m in said], [m["loss"] for m in heard], rtol=1e-5)

    def alone(keys, params, batch, context):  # the control: each device among its own
        return loss(keys, params, batch, context._replace(gather=lambda y: jnp.tile(y, (BATCH // len(y), 1))))

    wrong, _ = trained(alone, init, optax.sgd(0.05), way)
    assert np.abs(wrong.params["w"] - one.params["w"]).max() > 1e-3
