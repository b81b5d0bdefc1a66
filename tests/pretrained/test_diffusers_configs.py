"""What of a config.json is refused, by name and value; the wiring; a model to a folder and back. No torch."""

import json

import jax
import numpy as np
import pytest
from configs_published import (
    CONSISTENCY_IMAGENET64,
    CONSISTENCY_LSUN,
    CONTROLNET,
    DDPM_CIFAR10,
    KARLO_DECODER,
    NCSNPP_256,
    SDXL,
    SDXL_CONTROLNET,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_2,
    STABLE_DIFFUSION_UPSCALER,
    deepfloyd,
)
from flax import traverse_util

from diffusion_jax import pretrained
from diffusion_jax.core.errors import InputError
from diffusion_jax.models.blocks.layers import sinusoid
from diffusion_jax.pretrained import entries, loading
from diffusion_jax.pretrained.wiring import Wiring

pytestmark = pytest.mark.slow

DIT = {
    "_class_name": "Transformer2DModel",
    "activation_fn": "gelu-approximate",
    "attention_bias": True,
    "attention_head_dim": 72,
    "cross_attention_dim": None,
    "in_channels": 4,
    "norm_elementwise_affine": False,
    "norm_type": "ada_norm_zero",
    "num_attention_heads": 16,
    "num_embeds_ada_norm": 1000,
    "num_layers": 28,
    "out_channels": 8,
    "patch_size": 2,
    "sample_size": 32,
}
IF = deepfloyd(192)
REFUSED = [
    (DDPM_CIFAR10, {"center_input_sample": True}, "only False"),
    (DDPM_CIFAR10, {"time_embedding_type": "cosine"}, "only 'positional' or 'fourier' or 'learned'"),
    (DDPM_CIFAR10, {"num_train_timesteps": None, "time_embedding_type": "learned"}, "num_train_timesteps = None is"),
    (DDPM_CIFAR10, {"time_embedding_dim": 100}, "only None or 512"),
    (DDPM_CIFAR10, {"mid_block_type": "UNetMidBlock2DCrossAttn"}, "only 'UNetMidBlock2D' or None"),
    (CONTROLNET, {"mid_block_type": None}, "only 'UNetMidBlock2DCrossAttn'"),
    (DDPM_CIFAR10, {"mid_block_scale_factor": 0}, "a number from 1e-06"),
    (STABLE_DIFFUSION, {"mid_block_scale_factor": 1.4}, "only 1"),
    (DDPM_CIFAR10, {"add_attention": 0}, "only False or True"),
    (DDPM_CIFAR10, {"act_fn": "elu"}, "only 'silu'"),
    (STABLE_DIFFUSION, {"act_fn": "elu"}, "only 'silu'"),
    (NCSNPP_256, {"mid_block_scale_factor": 1}, "among skip blocks it is sqrt(2)"),
    (NCSNPP_256, {"block_out_channels": [64] * 7}, "at least 128"),
    (NCSNPP_256, {"norm_num_groups": 16}, "only None or 32"),
    (DDPM_CIFAR10, {"class_embed_type": "timestep"}, "only None"),
    (DDPM_CIFAR10, {"block_out_channels": "64"}, "a list of positive integers"),
    (DDPM_CIFAR10, {"block_out_channels": []}, "a list of positive integers"),
    (DDPM_CIFAR10, {"down_block_types": ["DownBlock2D"] * 3}, "for each of block_out_channels"),
    (
        DDPM_CIFAR10,
        {"up_block_types": ["UpBlock2D"] * 4, "down_block_types": ["SkipDownBlock2D"] * 4},
        "one of SkipDownBlock2D, ",
    ),
    (DDPM_CIFAR10, {"down_block_types": [["DownBlock2D"]] * 4}, "one of DownBlock2D, "),
    (DDPM_CIFAR10, {"flip_sin_to_cos": True}, "freq_shift = 1 is not supported; with flip_sin_to_cos = True only"),
    (DDPM_CIFAR10, {"downsample_padding": 2}, "only 0 or 1"),
    (DDPM_CIFAR10, {"attn_norm_num_groups": 16}, "only None or 32"),
    (DDPM_CIFAR10, {"downsample_type": "resnet"}, "the same between all levels"),
    (DDPM_CIFAR10, {"layers_per_block": [1, 2, 2, 2]}, "the same for every level"),
    (DDPM_CIFAR10, {"layers_per_block": True}, "an integer from 1"),
    (DDPM_CIFAR10, {"layers_per_block": 10**9}, "an integer from 1 to 128"),
    (DDPM_CIFAR10, {"block_out_channels": [2**40] * 4}, "at most 12 up to 100000"),
    (DDPM_CIFAR10, {"block_out_channels": [32] * 13}, "at most 12 up to 100000"),
    (DDPM_CIFAR10, {"sample_size": 10**9}, "integers from 1 to 8192"),
    (DDPM_CIFAR10, {"sample_size": [32, "32"]}, "integers from 1 to 8192"),
    (DDPM_CIFAR10, {"num_class_embeds": 2**40}, "an integer from 1 to 100000"),
    (DDPM_CIFAR10, {"dropout": "0"}, "a number from 0 to 1"),
    (DDPM_CIFAR10, {"something_new": 3}, "not known here"),
    (CONSISTENCY_IMAGENET64, {"attn_norm_num_groups": None}, "only 32"),
    (CONSISTENCY_IMAGENET64, {"norm_eps": 1e-6}, "only 1e-05"),
    (CONSISTENCY_LSUN, {"attn_norm_num_groups": 16}, "only None or 32"),
    (CONSISTENCY_LSUN, {"norm_eps": 1e-6}, "only 1e-05"),
    (CONSISTENCY_LSUN, {"downsample_type": "conv"}, "the same between all levels"),
    (CONSISTENCY_IMAGENET64, {"resnet_time_scale_shift": "spatial"}, "only 'default' or 'scale_shift'"),
    (SDXL, {"addition_time_embed_dim": None}, "an integer from 4"),
    (STABLE_DIFFUSION, {"addition_embed_type": "image"}, "only None or 'text' or 'text_time'"),
    (STABLE_DIFFUSION, {"addition_time_embed_dim": 256}, "only None"),
    (SDXL, {"projection_class_embeddings_input_dim": 256}, "more than 6 x 256"),
    (SDXL, {"addition_time_embed_dim": 255}, "an even number"),
    (SDXL, {"reverse_transformer_layers_per_block": [[1], [1], [1]]}, "not known here"),
    (SDXL, {"transformer_layers_per_block": [1, [2, 2], 10]}, "a list of integers"),
    (SDXL, {"layers_per_block": [2, 2]}, "one for each of block_out_channels"),
    (SDXL_CONTROLNET, {"class_embed_type": "timestep"}, "only None or 'identity' or 'projection'"),
    (SDXL_CONTROLNET, {"time_embedding_dim": 8}, "only None or 1280"),
    (SDXL_CONTROLNET, {"encoder_hid_dim": 8}, "only None"),
    (SDXL_CONTROLNET, {"layers_per_block": [1, 2, 1]}, "the same for every level"),
    (STABLE_DIFFUSION, {"time_cond_proj_dim": 255}, "an even number of at least 4"),
    (STABLE_DIFFUSION, {"only_cross_attention": [True, 0, True, False]}, "False or True, or 4 of these"),
    (STABLE_DIFFUSION, {"class_embed_type": "cosine"}, "or 'projection' or 'simple_projection'"),
    (STABLE_DIFFUSION, {"class_embed_type": "projection"}, "projection_class_embeddings_input_dim = None is"),
    (STABLE_DIFFUSION, {"projection_class_embeddings_input_dim": 8}, "only None"),
    (STABLE_DIFFUSION_UPSCALER, {"class_embed_type": "timestep"}, "num_class_embeds = 1000 is"),
    (STABLE_DIFFUSION, {"transformer_layers_per_block": [1, 2, 10]}, "one for each of block_out_channels"),
    (STABLE_DIFFUSION, {"transformer_layers_per_block": 100}, "at most 128 on one level"),
    (STABLE_DIFFUSION, {"cross_attention_dim": 10**9}, "an integer from 1 to 100000"),
    (STABLE_DIFFUSION, {"cross_attention_dim": [768, 768, 768, 1280]}, "the same for every level"),
    (STABLE_DIFFUSION, {"conv_in_kernel": 5}, "only 3"),
    (STABLE_DIFFUSION_2, {"attention_head_dim": [5, 10, 20, 10]}, "heads as wide everywhere"),
    (STABLE_DIFFUSION_2, {"attention_head_dim": [5, 10]}, "heads as wide everywhere"),
    (KARLO_DECODER, {"resnet_time_scale_shift": "default"}, "only 'scale_shift'"),
    (KARLO_DECODER, {"attention_head_dim": [64, 64, 64, 32]}, "the same for every level"),
    (KARLO_DECODER, {"up_block_types": ["CrossAttnUpBlock2D"] * 4}, "one of ResnetDownsampleBlock2D, "),
    (KARLO_DECODER, {"mid_block_type": "UNetMidBlock2D"}, "only 'UNetMidBlock2DSimpleCrossAttn' or None"),
    (KARLO_DECODER, {"transformer_layers_per_block": 2}, "only 1"),
    (KARLO_DECODER, {"encoder_hid_dim_type": "text_proj"}, "only None"),
    (KARLO_DECODER, {"cross_attention_norm": "layer_norm"}, "only None or 'group_norm'"),
    (KARLO_DECODER, {"mid_block_scale_factor": 2}, "that of resnet_out_scale_factor, 1.0"),
    (IF, {"act_fn": "elu", "class_embed_type": "timestep"}, "only 'silu'"),
    (IF, {"act_fn": "elu", "time_embedding_act_fn": "silu"}, "only 'silu'"),
    (KARLO_DECODER, {"timestep_post_act": "silu"}, "not known here"),
    (IF, {"encoder_hid_dim_type": "image_proj"}, "only None or 'text_proj'"),
    (IF, {"cross_attention_dim": 8}, "a multiple of 32"),
    (IF, {"addition_embed_type_num_heads": 60}, "a divisor of 4096"),
    (IF, {"time_embedding_act_fn": "elu"}, "only None or 'silu'"),
    (CONTROLNET, {"controlnet_conditioning_channel_order": "bgr"}, "only 'rgb'"),
    (CONTROLNET, {"global_pool_conditions": True}, "not known here"),
    (DIT, {"norm_type": "ada_norm"}, "only 'ada_norm_zero'"),
    (DIT, {"dropout": 0.1}, "only 0.0"),
    (DIT, {"sample_size": [8, 8, 8]}, "integers from 1 to 8192"),
    (DIT, {"num_layers": 10**9}, "an integer from 1 to 128"),
    (DIT, {"num_attention_heads": 10**9}, "an integer from 1 to 100000"),
    (DIT, {"patch_size": None}, "an integer from 1"),
]


@pytest.mark.parametrize(("config", "change", "message"), REFUSED, ids=[str(change) for _, change, _ in REFUSED])
def test_values_that_are_not_implemented_are_named(config, change, message):
    loading.build(config)
    with pytest.raises(InputError) as raised:
        loading.build(config | change)
    assert message in str(raised.value)
    assert next(iter(change)) in str(raised.value) or " = " in message  # of another value, which is named there
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("name", [None, "AsymmetricAutoencoderKL", ["UNet2DModel"]])
def test_other_classes_are_refused(name):
    with pytest.raises(InputError, match="is not known; of use are UNet2DModel, UNet2DConditionModel"):
        loading.build({"_class_name": name})


def test_shortcuts_are_where_channels_change():
    """By hand. Down: 8 -> 8, 8 -> 16. Up: 16 + 16 -> 16, 16 + 8 -> 16; 16 + 8 -> 8, 8 + 8 -> 8."""
    up = {"up_1_block_0", "up_1_block_1", "up_0_block_0", "up_0_block_1"}
    assert Wiring((8, 16), 1, ()).shortcuts() == {"down_1_block_0"} | up
    assert Wiring((8, 8), 1, ()).shortcuts() == up


def random_params(template):
    leaves = traverse_util.flatten_dict(template, sep="/")
    rng = np.random.default_rng(0)
    return traverse_util.unflatten_dict(
        {name: rng.normal(size=leaf.shape).astype(leaf.dtype) for name, leaf in leaves.items()}, sep="/"
    )


TINY = {
    "block_out_channels": [8, 16],
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
}


def test_a_model_to_a_folder_and_back(tmp_path):
    config = DDPM_CIFAR10 | TINY
    network = loading.build(config)
    params = random_params(network.template())
    entries.write(params, network.entries, tmp_path, config)
    with pytest.raises(InputError, match=r"no scheduler_config.json"):
        pretrained.load(tmp_path).sampling()
    (tmp_path / "scheduler_config.json").write_text(json.dumps({"_class_name": "DDPMScheduler"}))

    loaded = pretrained.load(tmp_path)
    assert loaded.config == config
    assert loaded.network.model.encode_time is sinusoid
    jax.tree.map(np.testing.assert_array_equal, loaded.params, params)
    assert loaded.sampling().grid(10)[-1] == 0
    x, time, _ = loaded.network.example
    out = loaded.network.model.apply({"params": loaded.params}, np.ones(x.shape, x.dtype), np.ones(time.shape))
    assert np.isfinite(out).all()

    loaded.save(tmp_path / "again")
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / name).read_bytes()
    assert pretrained.load(tmp_path / "again").scheduler == {"_class_name": "DDPMScheduler"}
    assert json.loads((tmp_path / "again" / "model_index.json").read_text()) == {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
    }
    loaded._replace(scheduler={"_class_name": "EulerDiscreteScheduler"}).save(tmp_path / "other")
    assert not (tmp_path / "other" / "model_index.json").exists()  # no pipeline of diffusers is these two


def test_weights_of_another_network_are_refused(tmp_path):
    config = DDPM_CIFAR10 | TINY
    network = loading.build(config)
    entries.write(random_params(network.template()), network.entries, tmp_path, config | {"layers_per_block": 2})
    with pytest.raises(InputError, match=r"not the weights of this network; missing: down_blocks.0.resnets.1.norm1"):
        pretrained.load(tmp_path)
