"""Which names of a config a class listens to, against diffusers' own classes."""

import importlib
import inspect
import sys
import types

import pytest

from diffusion_jax.core.errors import InputError
from diffusion_jax.pretrained import heard, loading
from diffusion_jax.pretrained.schedulers import scheduler

diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")


ELSEWHERE = {
    "DPMSolverSDEScheduler": "schedulers.scheduling_dpmsolver_sde",
    "UnCLIPTextProjModel": "pipelines.deprecated.unclip.text_proj",
    "StableUnCLIPImageNormalizer": "pipelines.stable_diffusion.stable_unclip_image_normalizer",
}


@pytest.mark.parametrize(("kind", "names"), [*heard.SCHEDULERS.items(), *heard.NETWORKS.items()])
def test_names_are_those_of_the_class(kind, names, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchsde", types.ModuleType("torchsde"))  # one class takes its noise from there
    module = ELSEWHERE.get(kind, "schedulers")
    theirs = getattr(importlib.import_module(f"diffusers.{module}"), kind, None) or getattr(diffusers, kind)
    assert names == set(inspect.signature(theirs.__init__).parameters) - {"self"}


# Of Stable Diffusion XL's EulerDiscreteScheduler, and of a folder from the first releases.
XL = {
    "_class_name": "EulerDiscreteScheduler",
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "clip_sample": True,
    "sample_max_value": 1.0,
    "set_alpha_to_one": True,
    "skip_prk_steps": True,
    "solver_order": 3,
    "timestep_spacing": "leading",
    "steps_offset": 1,
}
OLD = {"_class_name": "DDPMScheduler", "tensor_format": "np", "timestep_values": [3], "use_karras_sigmas": True}


@pytest.mark.parametrize("config", [XL, OLD])
def test_what_diffusers_drops_is_dropped(config):
    theirs = getattr(diffusers, config["_class_name"]).from_config(config)
    found = scheduler.sampling(config)
    assert found.schedule.alpha(0.5) == pytest.approx(float(theirs.alphas_cumprod[499]) ** 0.5, rel=1e-5)


def test_what_it_hears_is_not_dropped():
    with pytest.raises(InputError, match="log_linear"):
        scheduler.sampling(XL | {"interpolation_type": "log_linear"})
    with pytest.raises(InputError, match="something_new"):
        scheduler.sampling(XL | {"something_new": 1})


def test_a_saved_average():
    """EMAModel writes its own values into the network's config."""
    network = diffusers.UNet2DModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=4,
    )
    config = {"_class_name": "UNet2DModel", **network.config}
    average = {"decay": 0.9999, "use_ema_warmup": True, "inv_gamma": 1.0, "power": 0.75, "min_decay": 0.0}
    average |= {"optimization_step": 20000, "update_after_step": 10}
    found = loading.build(config | average | {"cross_attention_dim": 8}, network.state_dict())
    assert found.entries == loading.build(config).entries
    with pytest.raises(InputError, match="cross_attention_dim"):
        loading.build({"_class_name": "UNet2DConditionModel", **average, "cross_attention_dim": "8"})
