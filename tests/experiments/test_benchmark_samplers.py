"""experiments/benchmarks/samplers.py on a tiny network, ours alone: its counts, its controls and its tables."""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from experiments.benchmarks import samplers as benchmark
from experiments.benchmarks import samplers_ours

pytestmark = pytest.mark.slow

BATCH, CHAINS = 2, [2, 5]


@pytest.fixture(scope="module")
def options():
    return argparse.Namespace(
        config=Path(__file__).parent.parent / "tiny.py",
        batch=BATCH,
        steps=3,
        chains=CHAINS,
        repetitions=1,
        samplers=["euler"],
        parts=list(benchmark.PARTS),
    )


@pytest.fixture(scope="module")
def ours(options):
    return samplers_ours.Ours(options)


@pytest.fixture
def simple(monkeypatch, ours):
    """The same with a network that compiles at once, on pictures of 2x2; the list of its calls."""
    calls = []

    def network(params, x, time):
        calls.append(time)
        return jnp.tanh(x)

    monkeypatch.setattr(ours, "_apply", network)
    monkeypatch.setattr(ours, "_shape", (2, 2, 1))
    return calls


@pytest.fixture
def sample_condition(ours):
    """Answers as a `benchmark.Side` does, in this process."""
    return lambda method, *arguments: getattr(ours, method)(*arguments)


def test_every_sampler_is_there():
    assert tuple(samplers_ours.CHAINS) == benchmark.SAMPLERS


@pytest.mark.parametrize("name", benchmark.SAMPLERS)
def test_network_evaluations_are_counted_right(ours, simple, name):
    with jax.disable_jit():
        images = ours.sample_fn(name, 3)(None, jax.random.key(0))
    assert images.shape == (BATCH, 2, 2, 1)
    assert jnp.isfinite(images).all()
    assert len(simple) == samplers_ours.chain_of(name, 3).evaluations


def test_programs_do_not_grow_and_their_controls_do(options, simple, sample_condition):
    programs = benchmark.measure_programs(options, sample_condition)
    solve, film = ([programs[run]["euler"][n] for n in CHAINS] for run in ("solve", "film"))
    assert solve[0]["instructions"] == solve[1]["instructions"]
    assert solve[0]["memory"] == solve[1]["memory"]
    frame = BATCH * 2 * 2 * 4
    assert film[1]["memory"] - film[0]["memory"] == (CHAINS[1] - CHAINS[0]) * frame
    assert solve[0]["coefficients"] == CHAINS[0] * 3 * 4
    unrolled = programs["unrolled"]["euler"]
    assert unrolled[8]["instructions"] >= unrolled[2]["instructions"] + 6  # one or more a step
    assert "+0" in benchmark.compile_table(options, programs)
    assert "film, 5" in benchmark.memory_table(options, programs)
    assert benchmark.doubts(programs, [sample_condition("about")], []) == []
    programs["solve"]["euler"][5]["instructions"] += 1
    assert "instructions differ" in benchmark.doubts(programs, [sample_condition("about")], [])[0]


def test_speed_of_ours_alone_and_beside_another(options, sample_condition):
    speeds = benchmark.measure_speed(options, [sample_condition])
    assert speeds[0]["euler"]["evaluations"] == 3
    assert speeds[0]["euler"]["finite"]
    assert "euler" in benchmark.speed_table(options, [sample_condition("about")], speeds)
    twice = {name: result | {"seconds": [2 * s for s in result["seconds"]]} for name, result in speeds[0].items()}
    assert "2.00 (2.00 to 2.00)" in benchmark.speed_table(
        options, [sample_condition("about")] * 2, [speeds[0], twice]
    )


def test_help_and_wrong_numbers(capsys):
    with pytest.raises(SystemExit, match="0"):
        benchmark.main(["--help"])
    assert "annealed_langevin" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        benchmark.main(["--chains", "10", "2000"])
    assert "1000" in capsys.readouterr().err
