"""Networks and tables that come of diffusers' configs, against diffusers: names, shapes, outputs, gradients.

Every weight is drawn at random first, since layers that start at zero or one would hide mistakes. In float32 both
differ by rounding only: 1e-6 or so, asserted below 1e-4.
"""

import inspect

import jax
import numpy as np
import pytest
from configs_published import (
    CONSISTENCY_IMAGENET64,
    CONSISTENCY_LSUN,
    CONTROLNET,
    DDPM_256,
    DDPM_CIFAR10,
    NCSNPP_256,
    STABLE_DIFFUSION,
    STABLE_DIFFUSION_2,
    TUTORIAL,
)

from diffusion_jax.core.errors import InputError
from diffusion_jax.models.unets.adm import AdditiveUNet, ADMUNet, ImprovedUNet
from diffusion_jax.pretrained import entries
from diffusion_jax.pretrained.families import unet2d_condition
from diffusion_jax.pretrained.families.diffusers_configs import ACTIVATIONS
from diffusion_jax.pretrained.families.dit_config import DIT
from diffusion_jax.pretrained.families.unet2d import UNET2D, unet2d

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")

from diffusers.models.activations import get_activation  # noqa: E402
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
    swapped,
    worst,
)

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks as small as these are slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- Full size: names and shapes; no number is made.

FULL = {
    "ddpm-cifar10-32": (DDPM_CIFAR10, 35_746_307),
    "ddpm-celebahq-256": (DDPM_256, 113_673_219),
    "ncsnpp-celebahq-256": (NCSNPP_256, 65_574_549),
    "tutorial": (TUTORIAL | {"_class_name": "UNet2DModel"}, 113_673_219),
    "cd_imagenet64": (CONSISTENCY_IMAGENET64, 295_899_267),
    "cd_bedroom256": (CONSISTENCY_LSUN, 526_304_771),
    "stable-diffusion-v1-5": (STABLE_DIFFUSION, 859_520_964),
    "stable-diffusion-2": (STABLE_DIFFUSION_2, 865_910_724),
    "LCM_Dreamshaper_v7": (STABLE_DIFFUSION | {"time_cond_proj_dim": 256}, 859_520_964 + 256 * 320),
    "controlnet": (CONTROLNET, 361_279_120),
    # Its embeddings of time and label stand in each of 28 blocks.
    "DiT-XL-2-256": (
        {"_class_name": "DiTTransformer2DModel", "out_channels": 8},
        674_834_720 + 27 * (1001 * 1152 + 257 * 1152 + 1153 * 1152),
    ),
}


@pytest.mark.parametrize(("config", "parameters"), FULL.values(), ids=FULL)
def test_names_and_shapes_are_the_published_ones(config, parameters):
    with torch.device("meta"):
        model, network = build(config)
    found = entries.kinds(network.template(), network.entries)
    assert {name: shape for name, (_, shape) in found.items()} == {
        name: tuple(tensor.shape) for name, tensor in model.state_dict().items()
    }
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_theirs(name):
    x = np.linspace(-6, 6, 101, dtype=np.float32)
    theirs = get_activation(name)(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(ACTIVATIONS[name](x), theirs, atol=1e-6)


# ---- Tiny: numbers.

SMALL = {"norm_num_groups": 8, "layers_per_block": 1}
LEVELS = {
    "block_out_channels": [16, 32, 48],
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D"],
    "up_block_types": ["UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
}
RESNETS = {
    "block_out_channels": [16, 32],
    "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
    "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
}
READING = {
    "block_out_channels": [16, 32],
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
}
UP = {"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]}
TINY = {
    "DDPM": DDPM_CIFAR10 | LEVELS | SMALL,
    "diffusers' defaults": {"_class_name": "UNet2DModel"} | LEVELS | SMALL | {"block_out_channels": [16, 16, 16]},
    "consistency": CONSISTENCY_IMAGENET64
    | RESNETS
    | SMALL
    | {"attention_head_dim": 16, "attn_norm_num_groups": 8, "num_class_embeds": 5},
    "consistency LSUN": CONSISTENCY_LSUN | RESNETS | SMALL | {"attention_head_dim": 16},
    "Improved DDPM": CONSISTENCY_IMAGENET64
    | LEVELS
    | SMALL
    | {"downsample_type": "conv", "upsample_type": "conv", "num_class_embeds": None}
    | {"attention_head_dim": 16, "attn_norm_num_groups": 8},
    "other levels up, odd widths, mish, learned times": DDPM_CIFAR10
    | SMALL
    | {"block_out_channels": [16, 24], "act_fn": "mish"}
    | {"time_embedding_type": "learned", "num_train_timesteps": 1000}
    | {"down_block_types": ["AttnDownBlock2D", "DownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]},
    "Fourier": DDPM_CIFAR10
    | LEVELS
    | SMALL
    | {"time_embedding_type": "fourier", "block_out_channels": [16, 16, 16], "mid_block_scale_factor": 1.5},
    "no attention in the middle and up, gelu": CONSISTENCY_IMAGENET64
    | RESNETS
    | SMALL
    | {"add_attention": False, "act_fn": "gelu", "attn_norm_num_groups": None, "num_class_embeds": None}
    | {"attention_head_dim": 16, "up_block_types": ["ResnetUpsampleBlock2D"] * 2, "block_out_channels": [32, 16]},
    "Stable Diffusion 2": STABLE_DIFFUSION_2
    | READING
    | UP
    | SMALL
    | {"attention_head_dim": [2, 4], "transformer_layers_per_block": 2},
    "NCSN++": NCSNPP_256
    | {"layers_per_block": 1, "block_out_channels": [128, 160, 128]}
    | {"down_block_types": ["SkipDownBlock2D", "AttnSkipDownBlock2D", "SkipDownBlock2D"]}
    | {"up_block_types": ["SkipUpBlock2D", "AttnSkipUpBlock2D", "SkipUpBlock2D"]},
    "without a middle, gelu everywhere": STABLE_DIFFUSION
    | READING
    | UP
    | SMALL
    | {"mid_block_type": None, "act_fn": "gelu", "resnet_out_scale_factor": 1.4},
    "latent consistency": STABLE_DIFFUSION | READING | UP | SMALL | {"time_cond_proj_dim": 20},
    "ControlNet": CONTROLNET | READING | SMALL | {"conditioning_embedding_out_channels": [8, 16]},
}


VARIANTS = ["NCSN++", "Fourier", "other levels up, odd widths, mish, learned times"]
VARIANTS += ["no attention in the middle and up, gelu", "without a middle, gelu everywhere", "latent consistency"]


@pytest.mark.parametrize("key", ["DDPM", "diffusers' defaults", "Improved DDPM", "Stable Diffusion 2", *VARIANTS])
def test_outputs_equal_diffusers(key):
    model, network = build(TINY[key])
    randomise(model)
    problem = inputs(network)
    out, _ = run_theirs(model, *problem)
    params = network.read(state(model))
    with jax.default_matmul_precision("highest"):
        apply = jax.jit(network.model.apply).lower({"params": params}, *problem).compile(HASTY)
        error = worst([apply({"params": params}, *problem)], out)
        control = worst([apply({"params": swapped(params)}, *problem)], out)
    print(f"outputs {error:.1e}, control {control:.1e}")
    assert error < TOLERANCE
    assert control > 10 * TOLERANCE


@pytest.mark.parametrize("key", ["consistency", "consistency LSUN", "ControlNet"])
def test_outputs_and_gradients_equal_diffusers(key):
    model, network = build(TINY[key])
    randomise(model)
    problem = inputs(network)
    out, gradients = run_theirs(model, *problem)
    our_out, our_gradients = run_ours(network, network.read(state(model)), *problem)
    error = worst(our_out, out)
    assert error < TOLERANCE

    gradients = flat(network.read(gradients))
    for name in [name for name in our_gradients if name.endswith(ZERO_GRADIENT)]:
        scale = np.linalg.norm(gradients[name.replace("key", "query")])
        assert np.linalg.norm(our_gradients.pop(name)) < TOLERANCE * scale
    last = max((distance(g, gradients[name]), name) for name, g in our_gradients.items())
    print(f"outputs {error:.1e}; worst gradient {last}")
    assert last[0] < TOLERANCE, last


@pytest.mark.parametrize("key", ["consistency", "consistency LSUN", "Stable Diffusion 2", "ControlNet", *VARIANTS])
def test_diffusers_loads_what_is_written(tmp_path, key):
    model, network = build(TINY[key])
    check_written(tmp_path, model, network, TINY[key])


def old_name(name):
    for new, old in (("to_q", "query"), ("to_k", "key"), ("to_v", "value"), ("to_out.0", "proj_attn")):
        name = name.replace(f".{new}.", f".{old}.")
    return name


def test_older_names_of_attention(tmp_path):
    """As in the files of google/ddpm-cifar10-32; diffusers itself still reads them."""
    config = TINY["DDPM"]
    model, network = build(config)
    randomise(model)
    old = {old_name(name): array for name, array in state(model).items()}
    with pytest.raises(InputError, match=r"missing: .*to_q"):
        network.read(old)
    older = unet2d(config, old)
    params = older.read(old)
    jax.tree.map(np.testing.assert_array_equal, params, network.read(state(model)))
    entries.write(params, older.entries, tmp_path, config)
    loaded = state(diffusers.UNet2DModel.from_pretrained(tmp_path))
    for name, array in state(model).items():
        np.testing.assert_array_equal(loaded[name], array, err_msg=name)


@pytest.mark.parametrize(
    ("model", "defaults"),
    [
        ("UNet2DModel", UNET2D),
        ("UNet2DConditionModel", unet2d_condition.UNET2D_CONDITION),
        ("ControlNetModel", unet2d_condition.CONTROLNET),
        ("DiTTransformer2DModel", DIT),
    ],
)
def test_absent_values_are_those_of_diffusers(model, defaults):
    arguments = inspect.signature(getattr(diffusers, model).__init__).parameters
    theirs = {name: argument.default for name, argument in arguments.items() if name != "self"}
    # What one of the three does not have is None or False, and then ours has it as if it were off.
    assert {name: value for name, value in defaults.items() if name in theirs} == {
        name: value for name, value in theirs.items() if name in defaults
    }
    off = {name: value for name, value in theirs.items() if name not in defaults}
    assert all(value is None or value is False for value in off.values()), off


def test_the_modules_are_those_of_the_papers():
    assert type(unet2d(CONSISTENCY_IMAGENET64).model) is ADMUNet
    assert type(unet2d(TINY["Improved DDPM"]).model) is ImprovedUNet
    assert unet2d(CONSISTENCY_LSUN).model.clone(heads=None) == AdditiveUNet(heads=None)
