"""LoRAs in every way that files name them, merged as diffusers and peft merge them. All weights are redrawn."""

import copy
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="parity needs torch: pip install 'diffusion_jax[parity]'")
diffusers = pytest.importorskip("diffusers", reason="parity needs diffusers: see the extra 'parity'")
transformers = pytest.importorskip("transformers", reason="parity needs transformers: see the extra 'parity'")
pytest.importorskip("peft", reason="diffusers merges LoRA by peft: see the extra 'parity'")
library = pytest.importorskip("safetensors.torch", reason="parity needs safetensors: see the extra 'parity'")

from diffusion_jax.pretrained import lora  # noqa: E402
from diffusion_jax.pretrained.families import lora_names  # noqa: E402
from diffusion_jax.pretrained.formats import safetensors_file  # noqa: E402

UNET = {
    "sample_size": 8,
    "in_channels": 4,
    "out_channels": 4,
    "block_out_channels": (8, 16, 16),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "cross_attention_dim": 12,
    "attention_head_dim": 4,
    "norm_num_groups": 4,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 4,
    "projection_class_embeddings_input_dim": 36,
}
TEXT = {
    "vocab_size": 50,
    "hidden_size": 12,
    "intermediate_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 8,
    "projection_dim": 12,
}


class Networks:
    """A U-Net of SDXL's kind and a text encoder, and their weights in files."""

    def __init__(self, folder):
        draw = torch.Generator().manual_seed(0)
        self.unet = diffusers.UNet2DConditionModel(**UNET)
        self.text = transformers.CLIPTextModelWithProjection(transformers.CLIPTextConfig(**TEXT))
        self.files = {}
        for name, network in {"unet": self.unet, "text_encoder": self.text}.items():
            for parameter in network.parameters():
                parameter.data = torch.randn(parameter.shape, generator=draw)
            library.save_file(network.state_dict(), folder / f"{name}.safetensors")
            self.files[name] = folder / f"{name}.safetensors"

    def layers(self, name: str) -> dict[str, torch.nn.Module]:
        kinds = (torch.nn.Linear, torch.nn.Conv2d)
        return {n: module for n, module in getattr(self, name).named_modules() if isinstance(module, kinds)}


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # layers as small as these are slower on several
    yield Networks(tmp_path_factory.mktemp("networks"))
    torch.set_num_threads(before)


def pairs(layers, rank=3) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Layer -> down and up, of another rank in every third layer but the projection: they do not look its rank up."""
    draw, found = torch.Generator().manual_seed(1), {}
    for number, (name, module) in enumerate(layers.items()):
        r, (out, *rest) = rank + (number % 3 == 0 and name != "text_projection"), module.weight.shape
        ones = [1] * (len(rest) - 1)
        down, up = torch.randn([r, *rest], generator=draw), torch.randn([out, r, *ones], generator=draw)
        found[name] = down, up
    return found


def theirs(networks, path, scale):
    """Weights after `load_lora_weights` and `fuse_lora`, of copies."""
    pipe = diffusers.StableDiffusionXLPipeline
    state, alphas, metadata = pipe.lora_state_dict(path, unet_config=networks.unet.config, return_lora_metadata=True)
    unet, text = copy.deepcopy(networks.unet), copy.deepcopy(networks.text)
    pipe.load_lora_into_unet(state, alphas, unet, metadata=metadata)
    if any(name.startswith("text_encoder.") for name in state):
        pipe.load_lora_into_text_encoder(state, alphas, text, prefix="text_encoder", metadata=metadata)
    found = {}
    for name, network in {"unet": unet, "text_encoder": text}.items():
        for module in network.modules():
            if hasattr(module, "base_layer"):
                module.scale_layer(scale)
                module.merge()
        state = network.state_dict()
        found[name] = {n.replace(".base_layer", ""): value.numpy() for n, value in state.items() if ".lora_" not in n}
    return found


def flat(component, layer):
    return f"lora_{'unet' if component == 'unet' else 'te1'}_" + layer.replace(".", "_")


def named(way, component, layer, original) -> tuple[str, str]:
    """The names of down and up of a layer."""
    theirs_name = "unet" if component == "unet" else "text_encoder"
    if way in ("peft", "config"):
        start, ends = f"{theirs_name}.{layer}", ("lora_A", "lora_B")
    elif way == "attention":
        start, ends = (
            f"{theirs_name}.{layer}.{'lora' if component == 'unet' else 'lora_linear_layer'}",
            ("down", "up"),
        )
    elif way == "processors":
        before, _, last = layer.removesuffix(".0").rpartition(".")
        start, ends = f"unet.{before}.processor.{last}_lora", ("down", "up")
    else:
        start, ends = flat(component, original if way == "original" else layer), ("lora_down", "lora_up")
    return f"{start}.{ends[0]}.weight", f"{start}.{ends[1]}.weight"


def spelled(networks, way) -> tuple[dict, dict]:
    """A file's arrays and metadata in one way of naming, with all layers that are named so."""
    arrays, config = {}, {}
    for component in ("unet", "text"):
        layers = networks.layers(component)
        originals = lora_names._originals(layers)
        if way in ("processors", "attention"):
            layers = {name: module for name, module in layers.items() if ".attn" in name or "self_attn" in name}
        if way == "kohya":  # they drop these
            layers = {name: module for name, module in layers.items() if "add_embedding" not in name}
        if component == "text" and way in ("processors", "original"):
            continue
        lows = pairs(layers)
        for layer, (down, up) in lows.items():
            low, high = named(way, component, layer, originals.get(layer, layer))
            arrays |= {low: down, high: up}
            if way in ("kohya", "original"):  # of more than one alpha they take the most frequent for attention
                arrays[low.replace("lora_down.weight", "alpha")] = torch.tensor(2.0)
        if way == "config":
            said = {
                **{"r": 3, "lora_alpha": 2, "target_modules": list(layers), "use_rslora": component == "unet"},
                "rank_pattern": {f"^{name}": down.shape[0] for name, (down, _) in lows.items() if down.shape[0] != 3},
                "alpha_pattern": {name: 5 for name in list(layers)[1:4]},
            }
            start = "unet" if component == "unet" else "text_encoder"
            config |= {f"{start}.{name}": value for name, value in said.items()}
    return arrays, {lora.CONFIG: json.dumps(config)} if config else {}


@pytest.mark.parametrize("way", ["peft", "config", "attention", "processors", "kohya", "original"])
def test_merged_weights_are_theirs(networks, tmp_path, way):
    arrays, metadata = spelled(networks, way)
    path = tmp_path / "lora.safetensors"
    library.save_file(arrays, path, metadata=metadata or None)
    wanted = theirs(networks, path, 0.7)
    lora.check([lora.Lora(path)], ["unet", "text_encoder"])
    for component in ("unet", "text_encoder"):
        before = safetensors_file.load(networks.files[component])
        found = lora.merged(before, [lora.Lora(path, 0.7)], component)
        assert found.keys() == wanted[component].keys()
        changed = 0
        for name, array in found.items():
            np.testing.assert_allclose(np.asarray(array), wanted[component][name], rtol=2e-5, atol=2e-5, err_msg=name)
            changed += not np.array_equal(np.asarray(array), np.asarray(before[name]))
        assert changed == sum(isinstance(array, lora.Merged) for array in found.values())
        assert changed or (component == "text_encoder" and way in ("processors", "original"))
