"""SDXL's networks and their relatives, which are told more than a text, against diffusers.

In float32 both differ by rounding only: below 1e-5 or so, asserted below 3e-5.
"""

import math

import jax
import pytest
from configs_published import (
    SDXL,
    SDXL_CONTROLNET,
    SDXL_REFINER,
    STABLE_DIFFUSION_UPSCALER,
    STABLE_UNCLIP,
)

from diffusion_jax.models.blocks.conditioning import SizesEmbedding
from diffusion_jax.models.unets.text_unet import TextUNet
from diffusion_jax.pretrained import loading

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

from their_unets import HASTY, build, check_written, inputs, randomise, run_theirs, state, worst  # noqa: E402

pytestmark = pytest.mark.slow

TOLERANCE = 3e-5

# ---- Full size: shapes; no number is made.

FULL = {
    "SDXL": (SDXL, 2_567_463_684),
    "SDXL's refiner": (SDXL_REFINER, 2_259_526_660),
    "SDXL's ControlNet": (SDXL_CONTROLNET, 1_251_014_160),
    "Stable unCLIP": (STABLE_UNCLIP, 870_173_124),
}


@pytest.mark.parametrize(("config", "parameters"), FULL.values(), ids=FULL)
def test_parameters_are_as_many_as_published(config, parameters):
    template = loading.build(config).template()
    assert sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(template)) == parameters


# ---- Tiny: numbers.

SIZES = {"addition_time_embed_dim": 8, "projection_class_embeddings_input_dim": 6 * 8 + 10}
SMALL = {
    "norm_num_groups": 8,
    "cross_attention_dim": 12,
    "block_out_channels": [16, 32],
    "attention_head_dim": [2, 4],
    "down_block_types": ["CrossAttnDownBlock2D"] * 2,
}
ONE = {"layers_per_block": 1, "up_block_types": ["CrossAttnUpBlock2D", "UpBlock2D"]}
ONE |= {"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D"]}
TINY = {
    "SDXL": SDXL
    | SMALL
    | SIZES
    | {"up_block_types": ["CrossAttnUpBlock2D"] * 2, "class_embed_type": "simple_projection"}
    | {"transformer_layers_per_block": [1, 2], "layers_per_block": [2, 1]},
    "SDXL's ControlNet": SDXL_CONTROLNET
    | SMALL
    | SIZES
    | {"transformer_layers_per_block": [2, 1], "layers_per_block": 1}
    | {"conditioning_embedding_out_channels": [8, 16]},
    "Stable unCLIP": STABLE_UNCLIP
    | SMALL
    | ONE
    | {"projection_class_embeddings_input_dim": 20, "act_fn": "gelu", "time_embedding_dim": 40, "encoder_hid_dim": 7},
    "upscaler": STABLE_DIFFUSION_UPSCALER
    | SMALL
    | ONE
    | {"num_class_embeds": 5, "only_cross_attention": [False, True], "attention_head_dim": 4}
    | {"addition_embed_type": "text", "addition_embed_type_num_heads": 3},
}


@pytest.mark.parametrize("key", TINY)
def test_outputs_equal_diffusers(key):
    model, network = build(TINY[key])
    randomise(model)
    x, time, cond = inputs(network)
    out, _ = run_theirs(model, x, time, cond)
    params = network.read(state(model))
    with jax.default_matmul_precision("highest"):
        apply = jax.jit(network.model.apply).lower({"params": params}, x, time, cond).compile(HASTY)

        def error(params, cond):
            ours = apply({"params": params}, x, time, cond)
            return worst(ours if type(ours) is list else [ours], out)

        found = error(params, cond)
        assert found < TOLERANCE
        for name in cond:  # what shapes do not show: the batch in the other order, one condition at a time
            assert error(params, cond | {name: cond[name][::-1].copy()}) > 100 * TOLERANCE, name


@pytest.mark.parametrize("key", ["SDXL", "upscaler"])
def test_diffusers_loads_what_is_written(tmp_path, key):
    model, network = build(TINY[key])
    check_written(tmp_path, model, network, TINY[key])


def test_the_module_is_that_of_the_docstring():
    sizes = {"sizes": SizesEmbedding(256, 2816)}
    wiring = {"multipliers": (1, 2, 4), "attention_levels": (1, 2), "depth": (1, 2, 10, 10)}
    assert loading.build(SDXL).model.clone(heads=None) == TextUNet(**wiring, heads=None, embed=sizes)
