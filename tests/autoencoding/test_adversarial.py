"""One loss has both players' gradients, and the weight between them is that of the whole batch."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from diffusion_jax.autoencoding import adversarial, bottlenecks, distortions, laws, objectives
from diffusion_jax.autoencoding.codes import coder
from diffusion_jax.core.errors import InputError
from diffusion_jax.diffusion import time_sampling
from diffusion_jax.diffusion.losses import Context
from diffusion_jax.parallel.replicated import DataParallel
from diffusion_jax.parallel.sharded import Sharded
from diffusion_jax.training import optimizers
from diffusion_jax.training.loop import fit
from diffusion_jax.training.state import init_state
from diffusion_jax.training.step import make_train_step
from experiments.strangers import small
from tests import changed

pytestmark = pytest.mark.slow

BATCH, SIDE = 16, 5
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(3, BATCH, SIDE))
WEIGHTS = {
    name: RANDOM.normal(size=shape) for name, shape in {"in": (SIDE, 3), "mid": (3, 4), "out": (4, SIDE)}.items()
}
KEYS = jax.random.split(jax.random.key(0), BATCH)
JUDGE = RANDOM.normal(size=(SIDE, 6)), RANDOM.normal(size=(6, 2))


def init(key):
    kernel = jnp.array(WEIGHTS["out"])
    return {
        "encoder": jnp.array(WEIGHTS["in"]),
        "decoder": {"mid": jnp.array(WEIGHTS["mid"]), "output_conv": {"kernel": kernel}},
        "discriminator": [jnp.array(layer) for layer in JUDGE],
        "balance": adversarial.balance(kernel),
    }


def encode(params, x):
    return laws.certain(jnp.tanh(x @ params["encoder"]))


def decode(params, z):
    return jnp.tanh(z @ params["decoder"]["mid"]) @ params["decoder"]["output_conv"]["kernel"]


def discriminate(params, x):
    first, second = params["discriminator"]
    return jnp.tanh(x @ first) @ second  # two patches


COMPARE = distortions.unlikely(laws.laplace(1.0))


def loss(weight=0.7, start=0):
    distort = adversarial.against(decode, COMPARE, discriminate, weight, start)
    return objectives.costing(coder(encode, bottlenecks.mean), distort)


def errors(params, x):
    return jnp.abs(x - decode(params, encode(params, x).mean)).sum(axis=1)


def lost(params, x):
    return -discriminate(params, decode(params, encode(params, x).mean)).mean(axis=1)


def by_last(of, params, x):
    """The gradient of a mean by the last kernel alone."""

    def mean(kernel):
        decoder = params["decoder"] | {"output_conv": {"kernel": kernel}}
        return of(params | {"decoder": decoder}, x).mean()

    return jax.grad(mean)(params["decoder"]["output_conv"]["kernel"])


@pytest.mark.parametrize("lose", [adversarial.hinge, adversarial.vanilla])
def test_one_loss_has_the_gradients_of_two(lose, x64):
    """Each player's own, as if the other were a constant, and the weight that the statistics say."""
    params = init(None)
    params["balance"] = {"error": jnp.full((4, SIDE), 0.3), "judged": jnp.full((4, SIDE), 0.2)}
    w = 0.7 * 0.3 * np.sqrt(20) / (0.2 * np.sqrt(20) + 1e-4)
    distort = adversarial.against(decode, COMPARE, discriminate, 0.7, 0, lose)
    one = objectives.costing(coder(encode, bottlenecks.mean), distort)

    def mean(params):
        values, info = one(KEYS, params, X[0], Context((), 0))
        return values.mean(), info

    def maker(params):
        return errors(params, X[0]).mean() + w * lost(params, X[0]).mean()

    def judge(params):
        made = decode(params, encode(params, X[0]).mean)
        return lose(discriminate(params, X[0]), discriminate(params, made)).mean()

    @jax.jit
    def slopes(params):
        both = maker(params) + judge(params)
        return jax.value_and_grad(mean, has_aux=True)(params), both, jax.grad(maker)(params), jax.grad(judge)(params)

    ((value, info), found), both, makers, judges = slopes(params)
    expected = {name: makers[name] for name in ("encoder", "decoder")} | {"discriminator": judges["discriminator"]}
    for name, part in expected.items():
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14), found[name], part)
    np.testing.assert_allclose(value, both + SIDE * np.log(2), rtol=1e-12)
    np.testing.assert_allclose(info["weight"], w, rtol=1e-12)
    # Control: without stopped gradients the discriminator would help its opponent, and the decoder its own.
    assert np.abs(makers["discriminator"][0]).max() > 1e-3
    assert np.abs(judges["encoder"]).max() > 1e-3


WAYS = {
    "whole": lambda: (DataParallel(jax.devices()[:1]), 1),
    "in parts": lambda: (DataParallel(jax.devices()[:1]), 4),
    "eight devices": lambda: (DataParallel(jax.devices()[:8]), 1),
    "spread, in parts": lambda: (Sharded(jax.devices()[:4], least=1), 2),
}


def still(train):
    return optimizers.Optimizer(optax.sgd(0.01))


def test_the_weight_is_the_whole_batchs_however_it_is_split(x64):
    """The statistics after an update, against two passes over the whole batch; and what they weigh in the next."""
    optimizer = optimizers.by_part(still, balance=optimizers.moving(0.0))(SimpleNamespace()).transformation
    times, of_batch = time_sampling.none(), loss()

    def of_examples(keys, params, batch, context):
        return of_batch(keys, params, batch["x"], context)

    start = init(None)
    expected = {"error": by_last(errors, start, X[0]), "judged": by_last(lost, start, X[0])}
    norms = {name: np.linalg.norm(gradient) for name, gradient in expected.items()}
    weight = 0.7 * norms["error"] / (norms["judged"] + 1e-4)
    ends = []
    for parallel, parts in (make() for make in WAYS.values()):
        step = parallel.train_step(make_train_step(of_examples, times, optimizer, 0.9, 3, parts, parallel.shares))
        state = parallel.hold(init_state(init, optimizer, times, jax.random.key(0)))
        state, logged = step(state, parallel.shard({"x": X[0]}))
        assert logged["weight"] == 0  # nothing is known yet
        found = jax.device_get(state.params["balance"])
        for name, gradient in expected.items():
            np.testing.assert_allclose(found[name], gradient, rtol=1e-12, atol=1e-15)
        for x in X[1:]:
            state, logged = step(state, parallel.shard({"x": x}))
            ends.append(float(logged["weight"]))
        if len(ends) == 2:
            np.testing.assert_allclose(ends[0], weight, rtol=1e-6)  # logged in float32
            whole = jax.device_get(state.params)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12), state.params, whole)
    # Control: the mean of the shares' own weights.
    shares = np.split(X[0], 8)
    own = [[np.linalg.norm(by_last(of, start, share)) for of in (errors, lost)] for share in shares]
    assert abs(0.7 * np.mean([a / (b + 1e-4) for a, b in own]) / weight - 1) > 0.1


def test_until_its_start_a_discriminator_neither_counts_nor_learns(x64):
    params = init(None)
    params["balance"] = jax.tree.map(jnp.ones_like, params["balance"])

    def slope(step):
        def mean(params):
            values, info = loss(start=5)(KEYS, params, X[0], Context((), step))
            return values.mean(), info["weight"]

        return jax.grad(mean, has_aux=True)(params)

    slope = jax.jit(slope)
    (before, none), (after, some) = slope(4), slope(5)
    assert (none == 0).all()
    assert (some > 0).all()
    assert all((layer == 0).all() for layer in before["discriminator"])
    assert all(np.abs(layer).max() > 0 for layer in after["discriminator"])
    alone = jax.grad(lambda params: errors(params, X[0]).mean())(params)
    np.testing.assert_allclose(before["encoder"], alone["encoder"], rtol=1e-12)
    assert np.abs(after["encoder"] - alone["encoder"]).max() > 1e-3


def test_losses_and_bounds_of_the_weight():
    real, made = jnp.array([[2.0, -1.0]]), jnp.array([[0.5, -3.0]])
    np.testing.assert_allclose(adversarial.hinge(real, made), [0.5 * (0 + 2 + 1.5 + 0) / 2])
    logistic = -np.log(1 / (1 + np.exp(-np.array(real)))) - np.log(1 - 1 / (1 + np.exp(-np.array(made))))
    np.testing.assert_allclose(adversarial.vanilla(real, made), [0.5 * logistic.mean()], rtol=1e-5)
    np.testing.assert_allclose(adversarial.generator(made), [1.25])
    ones, nothing = jnp.ones(4), jnp.zeros(4)
    np.testing.assert_allclose(adversarial.adaptive(3 * ones, ones), 6 / 2.0001)
    assert adversarial.adaptive(ones, nothing) == 1e4
    assert adversarial.adaptive(nothing, nothing) == 0


@pytest.mark.parametrize(("weight", "start", "message"), [(-1.0, 0, "weighed by -1"), (1.0, -1, "at update -1")])
def test_what_makes_no_sense_is_refused(weight, start, message):
    with pytest.raises(InputError, match=message):
        loss(weight, start)


@pytest.mark.exhaustive
def test_halves_make_a_whole_to_the_bit(tmp_path):
    """With a discriminator that begins after the interruption, and its weight."""
    of_points = loss(start=4)
    make = optimizers.by_part(lambda train: optimizers.Optimizer(optax.adam(1e-2)), balance=optimizers.moving(0.5))
    transformation = make(SimpleNamespace()).transformation

    def start(key):
        return jax.tree.map(lambda x: x.astype(jnp.float32), init(key))

    def of_examples(keys, params, batch, context):
        return of_points(keys, params, jnp.tile(batch["points"], 3)[:, :SIDE], context)

    def run(workdir, steps):
        values = small.get_config()
        values.train.steps = steps
        task = changed.task(small.build(values), init=start, loss=of_examples, times=time_sampling.none())
        return fit(changed.trained_by(task, transformation), values, workdir, devices=jax.devices()[:2])

    run(tmp_path / "halves", 3)
    halves, whole = run(tmp_path / "halves", 6), run(tmp_path / "whole", 6)
    for a, b in zip(jax.tree.leaves(halves), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.abs(part).max() > 0 for part in jax.tree.leaves(whole.params["balance"]))
    assert np.abs(whole.params["discriminator"][0] - JUDGE[0]).max() > 1e-5
