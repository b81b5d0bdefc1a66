"""The peer of the networks' benchmark: their twins in diffusers."""

import time
from contextlib import nullcontext

import diffusers
import torch

from experiments.benchmarks import peer
from experiments.benchmarks.networks import CLASSES, HINT, NETWORKS, TOKENS, TOLD


def wiring(fields: dict, plain: str, attended: str) -> dict:
    """Options of diffusers' U-Nets: blocks of the type `plain`, or `attended` at levels where attention stands."""
    levels = range(len(fields["multipliers"]))
    types = [attended if level in fields["attention_levels"] else plain for level in levels]
    return {
        "down_block_types": [name.format("Down", "Downsample") for name in types],
        "up_block_types": [name.format("Up", "Upsample") for name in reversed(types)],
        "block_out_channels": [fields["channels"] * m for m in fields["multipliers"]],
        "layers_per_block": fields["blocks"],
    }


def adm(size):
    fields = size["fields"]
    return diffusers.UNet2DModel(
        sample_size=size["image"][0],
        in_channels=size["image"][2],
        out_channels=fields["out_channels"],
        **wiring(fields, "Resnet{1}Block2D", "Attn{0}Block2D"),
        downsample_type="resnet",
        upsample_type="resnet",
        resnet_time_scale_shift="scale_shift",
        attention_head_dim=size["head"],
        attn_norm_num_groups=32,  # without it the middle attention has no normalisation
        num_class_embeds=CLASSES,
    )


def text_options(fields):
    return wiring(fields, "{0}Block2D", "CrossAttn{0}Block2D") | {
        "cross_attention_dim": TOKENS[1],
        "attention_head_dim": 8,  # which means 8 heads
    }


def text(size):
    options = text_options(size["fields"])
    return diffusers.UNet2DConditionModel(sample_size=size["image"][0], **options)


class Controlled(torch.nn.Module):
    """The text U-Net and its ControlNet, in one call."""

    def __init__(self, size):
        super().__init__()
        self.unet = text(size)
        options = text_options(size["fields"])
        del options["up_block_types"]
        self.control = diffusers.ControlNetModel(**options)

    def forward(self, x, time, tokens, hint):
        down, middle = self.control(x, time, tokens, hint, return_dict=False)
        return self.unet(x, time, tokens, down_block_additional_residuals=down, mid_block_additional_residual=middle)


def dit(size):
    return peer.transformer(size["image"][0], size["image"][2], **size["fields"], classes=CLASSES)


def ddpm(size):
    return peer.unet(size["image"][0], size["image"][2], **size["fields"], dropout=0.0, groups=32)


TWINS = {"ddpm": ddpm, "adm": adm, "text": text, "dit": dit, "controlnet": Controlled}


class Peer:
    """What the parent may ask of this side."""

    def __init__(self, options, ours, device):
        peer._use_well(device)
        size, self._device, self._forwards = NETWORKS[options.network][options.size], device, options.forwards
        batch, (height, width, channels) = ours["batch"], size["image"]
        model = TWINS[options.network](size).to(device, memory_format=torch.channels_last).eval()
        x = torch.randn(batch, channels, height, width).contiguous(memory_format=torch.channels_last)
        makers = {
            "label": lambda: torch.randint(CLASSES, (batch,)),
            "tokens": lambda: torch.randn(batch, *TOKENS),
            "hint": lambda: torch.randn(batch, 3, HINT * height, HINT * width),
        }
        told = [makers[condition]() for condition in TOLD[options.network]]
        self._arguments = [argument.to(device) for argument in (x, torch.linspace(0, 999, batch), *told)]
        self._apply = torch.compile(model) if options.compile else model
        bfloat16 = options.dtype == "bfloat16"
        self._precision = (lambda: torch.autocast(device, torch.bfloat16)) if bfloat16 else nullcontext
        self._about = {
            "name": "diffusers, compiled" if options.compile else "diffusers",
            "versions": f"torch {torch.__version__}, diffusers {diffusers.__version__}, "
            f"{torch.get_num_threads()} threads",
            "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
            "parameters": sum(p.numel() for p in model.parameters()),
        }

    def about(self) -> dict:
        return self._about

    def prepare(self) -> float:
        """Seconds of the first call."""
        return self.seconds()

    @torch.inference_mode()
    def seconds(self) -> float:
        """Of one forward pass."""
        start = time.perf_counter()
        with self._precision():
            for _ in range(self._forwards):
                self._apply(*self._arguments)
        if self._device == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - start) / self._forwards


def make(options, ours):
    """`Peer`, or None where torch sees no such device as ours is."""
    device = {"cpu": "cpu", "gpu": "cuda"}.get(ours["platform"])
    if device is None or (device == "cuda" and not torch.cuda.is_available()):
        return None
    return Peer(options, ours, device)
