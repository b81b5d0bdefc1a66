"""Tiny folders in the layout of published models, written by this package: weights at random."""

import json

import jax
import numpy as np
from configs_published import CONSISTENCY_IMAGENET64, CONTROLNET, DDPM_CIFAR10, NCSNPP_256, STABLE_DIFFUSION

from diffusion_jax.pretrained import entries, loading

SMALL = {"norm_num_groups": 8, "layers_per_block": 1, "block_out_channels": [16, 32], "sample_size": 8}
READING = {
    "down_block_types": ["CrossAttnDownBlock2D", "DownBlock2D"],
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
}
CONFIGS = {
    "ddpm": DDPM_CIFAR10
    | SMALL
    | {"down_block_types": ["DownBlock2D", "AttnDownBlock2D"], "up_block_types": ["AttnUpBlock2D", "UpBlock2D"]},
    "consistency": CONSISTENCY_IMAGENET64
    | SMALL
    | {
        "down_block_types": ["ResnetDownsampleBlock2D", "AttnDownBlock2D"],
        "up_block_types": ["AttnUpBlock2D", "ResnetUpsampleBlock2D"],
        "attention_head_dim": 16,
        "attn_norm_num_groups": 8,
        "num_class_embeds": 5,
    },
    "ncsnpp": NCSNPP_256
    | {"layers_per_block": 1, "block_out_channels": [128, 128], "sample_size": 4}
    | {"down_block_types": ["SkipDownBlock2D"] * 2, "up_block_types": ["SkipUpBlock2D"] * 2},
    "text": STABLE_DIFFUSION | SMALL | READING | {"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"]},
    "latent": STABLE_DIFFUSION
    | SMALL
    | READING
    | {"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "time_cond_proj_dim": 20},
    "inpainting": STABLE_DIFFUSION
    | SMALL
    | READING
    | {"up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D"], "in_channels": 9, "num_class_embeds": 5},
    "controlnet": {name: value for name, value in (CONTROLNET | SMALL | READING).items() if name != "sample_size"}
    | {"conditioning_embedding_out_channels": [8, 16]},
    "dit": {
        "_class_name": "DiTTransformer2DModel",
        "num_attention_heads": 2,
        "attention_head_dim": 12,
        "num_layers": 2,
        "in_channels": 4,
        "out_channels": 8,
        "sample_size": 8,
        "num_embeds_ada_norm": 5,
    },
}
# Of one level without a middle, for what compiles a network several times.
FLAT = {"block_out_channels": [16], "mid_block_type": None}
CONFIGS["flat"] = (
    CONFIGS["ddpm"]
    | FLAT
    | {
        "down_block_types": ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"],
    }
)
CONFIGS["unlabelled"] = (
    CONFIGS["consistency"]
    | FLAT
    | {
        "down_block_types": ["ResnetDownsampleBlock2D"],
        "up_block_types": ["ResnetUpsampleBlock2D"],
        "num_class_embeds": None,
    }
)
DDPM = {"_class_name": "DDPMScheduler", "variance_type": "fixed_large"}
DDIM = {"_class_name": "DDIMScheduler", "clip_sample": False}
SCHEDULERS = {
    "ddpm": DDPM,
    "consistency": {"_class_name": "CMStochasticIterativeScheduler"},
    "flat": DDPM,
    "unlabelled": {"_class_name": "CMStochasticIterativeScheduler"},
    "ncsnpp": {"_class_name": "ScoreSdeVeScheduler", "sigma_max": 50.0},
    "text": DDIM | {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1},
    "latent": {"_class_name": "LCMScheduler"},
    "inpainting": DDIM,
    "controlnet": None,
    "dit": DDIM,
}


def make(root, name: str, **scheduler):
    """The folder of a tiny model of this kind; `scheduler` are other values of its scheduler's config."""
    folder = root / name
    written(folder, CONFIGS[name])
    if SCHEDULERS[name] is not None:
        (folder / "scheduler_config.json").write_text(json.dumps(SCHEDULERS[name] | scheduler))
    return folder


def make_pipeline(root, network: str, first: dict, at: str = "vae", **values):
    """A pipeline: a tiny network with these other `values` of its config, and in `at` the first stage `first`."""
    where = "transformer" if network == "dit" else "unet"
    config = CONFIGS[network] | values
    written(root / where, config)
    written(root / at, first, seed=1)
    scheduler = SCHEDULERS[network]
    (root / "scheduler").mkdir()
    (root / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))
    parts = {where: config, at: first, "scheduler": scheduler}
    index = {part: ["diffusers", found["_class_name"]] for part, found in parts.items()}
    (root / "model_index.json").write_text(json.dumps({"_class_name": "DiffusionPipeline", **index}))
    return root


def written(folder, config, seed=0):
    """A folder of random weights."""
    network = loading.build(config)
    rng = np.random.default_rng(seed)

    def draw(leaf):
        fan = np.prod(leaf.shape[:-1]) if len(leaf.shape) > 1 else 25
        return (rng.normal(size=leaf.shape) / np.sqrt(fan)).astype(np.float32)

    entries.write(jax.tree.map(draw, network.template()), network.entries, folder, config)
