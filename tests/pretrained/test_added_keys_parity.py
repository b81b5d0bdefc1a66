"""Karlo's networks and IF's against diffusers; attention has a text's keys beside the pixels' there.

In float32 both differ by rounding only: below 1e-5 or so, asserted below 3e-5.
"""

import math

import jax
import numpy as np
import pytest
from configs_published import KARLO_DECODER, KARLO_SUPER_RESOLUTION, deepfloyd

from diffusion_jax.models.blocks.conditioning import GivenEmbedding, TokensEmbedding
from diffusion_jax.models.unets.added_keys import AddedKeyUNet
from diffusion_jax.models.unets.adm import heads_always
from diffusion_jax.pretrained import loading
from diffusion_jax.pretrained.families.diffusers_configs import ACTIVATIONS

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

from their_unets import (  # noqa: E402
    HASTY,
    ZERO_GRADIENT,
    build,
    check_written,
    distance,
    flat,
    inputs,
    randomise,
    run_ours,
    run_theirs,
    state,
    worst,
)

pytestmark = pytest.mark.slow

TOLERANCE = 3e-5

FULL = {
    "Karlo's decoder": (KARLO_DECODER, 885_439_686),
    "Karlo's super-resolution": (KARLO_SUPER_RESOLUTION, 691_579_523),
    "IF-I M": (deepfloyd(192), 371_605_830),
    "IF-I XL": (deepfloyd(704), 4_304_695_110),
}
SMALL = {
    "attention_head_dim": 8,
    "block_out_channels": [32, 64],
    "cross_attention_dim": 32,
    "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
    "layers_per_block": 1,
    "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"],
}
IF = deepfloyd(192) | SMALL | {"norm_num_groups": 8, "encoder_hid_dim": 48, "addition_embed_type_num_heads": 4}
TINY = {
    "Karlo's decoder": (KARLO_DECODER | SMALL, 845_254),
    "IF-I": (IF, 860_806),
    "IF-II": (
        IF
        | {
            "class_embed_type": "timestep",
            "in_channels": 6,
            "layers_per_block": [1, 2],
            "mid_block_scale_factor": 1 / 0.7071,
            "only_cross_attention": True,
            "resnet_out_scale_factor": 1 / 0.7071,
            "resnet_skip_time_act": True,
            "time_embedding_act_fn": "gelu",
            "time_embedding_dim": 64,
        },
        986_982,
    ),
    "Karlo's super-resolution": (
        KARLO_SUPER_RESOLUTION
        | {"block_out_channels": [32, 64], "layers_per_block": 1}
        | {"down_block_types": ["ResnetDownsampleBlock2D"] * 2, "up_block_types": ["ResnetUpsampleBlock2D"] * 2},
        None,
    ),
    "pixels see one another in the middle": (
        IF | {"only_cross_attention": [True, True], "time_embedding_act_fn": "silu"},
        None,
    ),
}


def size(config):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(loading.build(config).template()))


@pytest.mark.parametrize(("config", "parameters"), FULL.values(), ids=FULL)
def test_parameters_are_as_many_as_published(config, parameters):
    assert size(config) == parameters


def problem(key):
    config, parameters = TINY[key]
    model, network = build(config)
    assert parameters is None or size(config) == parameters
    randomise(model)
    x, time, cond = inputs(network)
    if key == "Karlo's decoder":
        cond["token_mask"] = np.array([[1, 1, 1, 0, 0], [1, 1, 1, 1, 0]], bool)
    return model, network, x, time, cond


@pytest.mark.parametrize("key", ["Karlo's decoder", "IF-II"])
def test_outputs_equal_diffusers(key):
    model, network, x, time, cond = problem(key)
    out, _ = run_theirs(model, x, time, cond, gradients=False)
    params = network.read(state(model))

    def errors(net, *conds):
        with jax.default_matmul_precision("highest"):
            apply = jax.jit(net.apply).lower({"params": params}, x, time, cond).compile(HASTY)
            return [worst([apply({"params": params}, x, time, told)], out) for told in conds]

    found, *controls = errors(network.model, cond, *(cond | {name: cond[name][::-1].copy()} for name in cond))
    print(f"outputs {found:.1e}, controls {controls}")
    assert found < TOLERANCE
    assert min(controls) > 30 * TOLERANCE
    if key == "Karlo's decoder":  # what shapes do not show: a head's width that is taken for the number of heads
        assert min(errors(network.model.clone(heads=heads_always(2)), cond)) > 30 * TOLERANCE


def test_outputs_and_gradients_equal_diffusers():
    model, network, *given = problem("IF-I")
    out, gradients = run_theirs(model, *given)
    our_out, our_gradients = run_ours(network, network.read(state(model)), *given)
    assert worst(our_out, out) < TOLERANCE
    gradients = flat(network.read(gradients))
    # What is constant over all tokens is taken away by a normalisation of groups of one channel.
    zero = (ZERO_GRADIENT, "project_tokens/bias")
    last = max((distance(g, gradients[n]), n) for n, g in our_gradients.items() if not n.endswith(zero))
    assert last[0] < 1e-4, last


@pytest.mark.parametrize("key", ["IF-II", "Karlo's super-resolution", "pixels see one another in the middle"])
def test_diffusers_loads_what_is_written(tmp_path, key):
    config, _ = TINY[key]
    model, network = build(config)
    check_written(tmp_path, model, network, config)


def test_the_modules_are_those_of_the_docstring():
    karlo, base = (loading.build(config).model.clone(heads=None) for config in (KARLO_DECODER, deepfloyd(192)))
    assert karlo == AddedKeyUNet(heads=None, embed={"vector": GivenEmbedding()})
    tokens = {"token_features": 4 * 192, "token_groups": 32, "embed": {"tokens": TokensEmbedding()}}
    assert base == AddedKeyUNet(heads=None, channels=192, activation=ACTIVATIONS["gelu"], **tokens)
