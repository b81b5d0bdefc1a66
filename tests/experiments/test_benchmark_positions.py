"""experiments/benchmarks/positions: the peer is the same network, and says so; the report on both, tiny."""

import argparse

import jax
import numpy as np
import pytest

from experiments.benchmarks import positions, positions_ours

pytest.importorskip("torch", reason="the peer needs torch: pip install 'diffusion_jax[parity]'")

from experiments.benchmarks import positions_peer

pytestmark = pytest.mark.slow


def test_both_sides_are_one_network_and_are_timed():
    options = argparse.Namespace(size="tiny", batch=2, repetitions=2)
    ours, peer = positions_ours.make(options, None), positions_peer.Peer(options, "cpu")
    params, tokens, logits = ours.said()
    difference = peer.difference(params, tokens, logits)
    assert difference < 1e-5
    other = jax.tree.map(np.array, params)
    other["layer_0"]["link"]["kernel"][0] += 0.1
    assert positions_peer.Peer(options, "cpu").difference(other, tokens, logits) > positions.ROUNDING
    sides = [lambda method, side=side: getattr(side, method)() for side in (ours, peer)]
    results = positions.measure(options, sides, lambda what: None)
    abouts = [side("about") for side in sides]
    assert abouts[0]["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))
    steady = [result | {"seconds": [2.0, 2.0]} for result in results]
    assert "6 (6 to 6)" in positions.report(options, abouts, steady)
    assert positions.report(options, abouts, steady).splitlines()[1].endswith("1.00 (1.00 to 1.00)")
    assert not positions.doubts(abouts, steady, difference)
    steady[1]["seconds"][0] = 3.0
    different, unsteady = positions.doubts(abouts, steady, 1.0)
    assert different.startswith("the two networks differ")
    assert unsteady.startswith("repetitions of PyTorch differ")
