"""experiments/benchmarks: the count of operations by hand, the report on made-up figures, ours on a tiny network."""

import argparse
import types

import jax
import jax.numpy as jnp
import pytest

from diffusion_jax.methods import pixels
from experiments.benchmarks import ddpm, flat, flat_ours, ours, sizes
from experiments.benchmarks.flops import flops
from experiments.benchmarks.shared import SideError
from tests import tiny as tiny_config

pytestmark = pytest.mark.slow

# ---- Operations.


def counted(function, *shapes):
    return flops(jax.make_jaxpr(function)(*(jnp.zeros(shape) for shape in shapes)))


def conv(x, kernel, **options):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, dimension_numbers=dimensions, **options)


def test_products_are_counted():
    assert counted(jnp.matmul, (3, 4), (4, 5)) == 2 * 3 * 4 * 5
    assert counted(lambda a, b: jnp.einsum("bij,bkj->bik", a, b), (7, 3, 4), (7, 5, 4)) == 7 * 2 * 3 * 4 * 5
    assert counted(lambda a, b: jnp.tanh(a) + b, (3, 4), (3, 4)) == 0


def test_convolutions_are_counted_with_strides_groups_and_gradients():
    def halved(x, kernel):
        return conv(x, kernel, window_strides=(2, 2), padding=((0, 1), (0, 1)))

    forward = 2 * (2 * 4 * 4 * 6) * (3 * 3 * 5)  # twice the 2x4x4x6 entries, each the sum of 3x3x5 products
    assert counted(halved, (2, 8, 8, 5), (3, 3, 5, 6)) == forward

    def slopes(x, kernel):
        return jax.grad(lambda *both: halved(*both).sum(), (0, 1))(x, kernel)

    # By the images and by the kernel as much as forward: the first is a convolution of dilated gradients.
    both = counted(slopes, (2, 8, 8, 5), (3, 3, 5, 6))
    assert both == 3 * forward

    def grouped(x, kernel):
        return conv(x, kernel, window_strides=(1, 1), padding="SAME", feature_group_count=2)

    assert counted(grouped, (1, 8, 8, 4), (3, 3, 2, 6)) == 2 * (8 * 8 * 6) * (3 * 3 * 2)


def test_every_turn_of_a_scan_is_counted_and_the_costliest_branch():
    def chain(x, a):
        return jax.lax.scan(lambda x, _: (jax.jit(jnp.matmul)(x, a), None), x, None, length=10)[0]

    assert counted(chain, (3, 4), (4, 4)) == 10 * 2 * 3 * 4 * 4

    def either(x, a):
        return jax.lax.cond(x.sum() > 0, lambda: x @ a @ a, lambda: x @ a)

    assert counted(either, (3, 4), (4, 4)) == 2 * 2 * 3 * 4 * 4


def test_a_loop_of_unknown_length_is_refused_where_it_multiplies():
    def until(body):
        return lambda x: jax.lax.while_loop(lambda x: x.sum() < 9, body, x)

    assert counted(until(lambda x: x + 1), (3, 3)) == 0
    with pytest.raises(ValueError, match="scan"):
        counted(until(lambda x: x @ x), (3, 3))


def test_the_cifar_network_takes_as_many_as_is_known():
    values = sizes.cifar.get_config()
    model, x = pixels.unet(values), jnp.zeros((1, *values.data.shape))
    params = jax.eval_shape(model.init, jax.random.key(0), x, jnp.zeros(1))["params"]
    evaluation = jax.make_jaxpr(lambda params: model.apply({"params": params}, x, jnp.zeros(1)))(params)
    # The literature's 6.05 G multiplications with additions leave out the two products of attention: five times
    # on 16x16 tokens, once on 4x4, of 256 features.
    attention = 2 * 2 * 256 * (5 * 256**2 + 16**2)
    assert flops(evaluation) == pytest.approx(2 * 6.05e9 + attention, rel=0.005)


# ---- What is asked and said.


@pytest.fixture
def options():
    return argparse.Namespace(
        size="cifar",
        batch=8,
        dtype="float32",
        repeats=2,
        tasks=["training", "heun"],
        train_steps=2,
        sampling_steps=5,
        peers=["eager", "compiled"],
    )


class Made:
    """A side of made-up figures: `seconds` a task, whatever it is asked to do; a peer counts no operations."""

    def __init__(self, name, seconds, fails=()):
        self.name, self.taken, self.fails = name, seconds, fails

    def __call__(self, method, *arguments):
        if method in self.fails:
            raise SideError("no compiler")
        return getattr(self, method)(*arguments)

    def about(self):
        plain = dict.fromkeys(("versions", "precision", "device", "platform"), f"of {self.name}")
        return plain | {"name": self.name, "parameters": 35, "shape": [32, 32, 3]}

    def first(self, task):
        return {"first": 9.0} | ({"compiling": 7.5} if self.name == "us" else {})

    def seconds(self, task):
        return self.taken

    def memory(self):
        return {"host": 100.0}

    def rate(self):
        return 4e9

    def flops(self):
        return {"training": 6e9, "evaluation": 2e9}


def test_evaluations_of_chains():
    assert {task: ddpm.evaluations(task) for task in ddpm.CHAINS} == {"ancestral": 1000, "ddim": 50, "heun": 35}
    assert [ddpm.evaluations("heun", n) for n in (1, 17, 18, 1000)] == [2, 34, 35, 35]
    assert [ddpm.evaluations("ancestral", n) for n in (1, 1000)] == [1, 1000]


def test_speed_ratio_and_utilisation(options):
    results, failed = ddpm.measure(options, [Made("us", 5.0), Made("them", 10.0), Made("others", 2.5)])
    assert not failed
    assert results[0]["training"]["seconds"] == [5.0, 5.0]  # without warm-up
    assert ddpm.images_per_second(options, "training", [5.0]) == [2 * 8 / 5]
    assert ddpm.images_per_second(options, "heun", [5.0]) == [8 * (10 / 35) / 5]
    share = ddpm.utilisation(options, "training", [5.0], results[0]["flops"], 4e9)
    assert share == pytest.approx(2 * 6e9 / 5 / 4e9)
    said = ddpm.report(options, results, [])
    rows = [[cell.strip() for cell in line.split("  ") if cell] for line in said.splitlines()]
    once = [f"{x} ({x} to {x})" for x in ("3.2", "1.6", "2.00", "6.4", "0.50")]
    assert ["training, images/s", *once] in rows  # ours, a peer and its ratio, another and its
    assert ["training, utilisation", "60 %", "30 %", "120 %"] in rows
    assert ["of which XLA's compiler", "7.5"] in rows
    assert "first 10 of 35" in said
    assert "of them" in said


def test_a_peer_that_is_missing_or_fails_is_named_and_ours_still_reported(options, monkeypatch):
    monkeypatch.setattr(ddpm.shared, "absent", lambda: "torch")
    sides, remarks = ddpm.peers_of(options, {})
    assert sides == []
    results, failed = ddpm.measure(options, [Made("us", 5.0)])
    said = ddpm.report(options, results, remarks)
    assert "torch not installed" in said
    assert "3.2 (3.2 to 3.2)" in said

    results, failed = ddpm.measure(options, [Made("us", 5.0), Made("them", 1.0, {"first"}), Made("others", 2.5)])
    assert failed == {1: "no compiler"}
    assert len(results[2]["heun"]["seconds"]) == 2
    with pytest.raises(SideError):
        ddpm.measure(options, [Made("us", 5.0, {"seconds"}), Made("them", 1.0)])


def test_another_network_is_refused_and_an_unsteady_machine_named(options, monkeypatch):
    monkeypatch.setattr(ddpm.shared, "absent", lambda: "")

    class Side(Made):
        runs = True

        def __init__(self, module, options, ours):
            super().__init__(f"them, {options.peer}", 1.0)

    monkeypatch.setattr(ddpm.shared, "Side", Side)
    assert [side("about")["name"] for side in ddpm.peers_of(options, {"parameters": 35})[0]] == [
        "them, eager",
        "them, compiled",
    ]
    with pytest.raises(SideError, match="36"):
        ddpm.peers_of(options, {"parameters": 36})
    results, _ = ddpm.measure(options, [Made("us", 5.0)])
    assert ddpm.doubts(options, results) == []
    results[0]["heun"]["seconds"][0] *= 2
    assert "heun of us" in ddpm.doubts(options, results)[0]


def test_command_lines(capsys):
    for main in (ddpm.main, flat.main):
        with pytest.raises(SystemExit, match="0"):
            main(["--help"])
    assert "fsdp" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        ddpm.main(["--tasks", "training,walking"])
    assert "walking" in capsys.readouterr().err


# ---- Ours, on a tiny network.


@pytest.fixture(scope="module")
def tiny():
    def smallest():
        values = tiny_config.get_config()
        values.model.multipliers, values.model.attention_levels = (1,), ()
        return values

    return sizes.unet(types.SimpleNamespace(get_config=smallest, build=tiny_config.build), "fixed_large")(False)


@pytest.mark.exhaustive
def test_ours_trains_draws_and_counts(options, tiny, monkeypatch):
    options.batch, options.repeats, options.tasks = 2, 1, ["training", "ddim"]
    side = ours.Ours(options, tiny)
    monkeypatch.setattr(ours, "best_rate", lambda multiply, platform: multiply(8)() is None or 1e9)
    results, _ = ddpm.measure(options, [lambda method, *arguments: getattr(side, method)(*arguments)])
    count = results[0].pop("flops")
    # Three times forward but for the gradient by the images, which nobody asks for.
    assert 2.8 < count["training"] / count["evaluation"] < 3
    assert results[0]["training"]["first"] >= results[0]["training"]["compiling"]
    assert "ddim, images/s" in ddpm.report(options, [results[0] | {"flops": count}], [])


def test_a_source_of_any_length_and_the_table(tiny):
    source = flat_ours.Repeated(tiny.experiment.data.example, 10**9)
    assert len(source) == 10**9
    assert source[10**9 - 1]["image"].shape == (8, 8, 1)

    def sample_condition(method, *_):
        return {"loader": 100.0, "alone": 10.0, "fed": (9.0, 0.25)}[method]

    measured = flat.measure_input(sample_condition, (10, 1000), 2)
    assert "0.90 (0.90 to 0.90)  25 (25 to 25)" in flat.input_table({"digits": measured})
    seconds = {name: [0.002, 0.002] for name in ("return", "thread", "done")}
    said = flat.dispatch_table({devices: {"least": seconds, "fsdp": seconds} for devices in (1, 8)}, 459)
    assert said.splitlines()[-1].split() == ["fsdp", "8", *["2", "(2", "to", "2)"] * 3]
